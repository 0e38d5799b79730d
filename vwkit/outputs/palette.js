"use strict";
(() => {
  for (const box of document.querySelectorAll(".compare")) {
    const slider = box.querySelector("input");
    const show = () => box.style.setProperty("--at", slider.value + "%");
    slider.addEventListener("input", show);
    show();
  }
  const canvas = document.querySelector("canvas[data-points]");
  if (!canvas) return;
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const points = bytes(canvas.dataset.points), centers = bytes(canvas.dataset.centers);
  const n = points.length / 7, k = centers.length / 7;
  const axes = { space: canvas.dataset.axes.split(" "), rgb: ["R", "B", "G"] };
  const state = { yaw: 0.62, pitch: 0.42, zoom: 1, mode: "space", mapped: false };
  const context = canvas.getContext("2d");
  const place = (data, i) => {
    const at = 7 * i;
    return state.mode === "rgb"
      ? [data[at] / 255 - 0.5, data[at + 2] / 255 - 0.5, data[at + 1] / 255 - 0.5]
      : [data[at + 3] / 255 - 0.5, data[at + 4] / 255 - 0.5, data[at + 5] / 255 - 0.5];
  };
  const colour = (data, i) => `rgb(${data[7 * i]},${data[7 * i + 1]},${data[7 * i + 2]})`;
  let side = 0;
  const project = ([x, y, z]) => {
    const c = Math.cos(state.yaw), s = Math.sin(state.yaw);
    const p = Math.cos(state.pitch), q = Math.sin(state.pitch);
    const right = x * c - y * s, back = x * s + y * c;
    const up = z * p + back * q, depth = back * p - z * q;
    const near = state.zoom / (1 + 0.22 * depth);
    return [side / 2 + 0.54 * side * right * near, side / 2 - 0.54 * side * up * near, depth, near];
  };
  const corners = [...Array(8).keys()].map((i) => [(i >> 2) - 0.5, ((i >> 1) & 1) - 0.5, (i & 1) - 0.5]);
  const edges = [];
  for (let i = 0; i < 8; i++) for (const bit of [1, 2, 4]) if (!(i & bit)) edges.push([i, i | bit]);
  let queued = false;
  const draw = () => {
    queued = false;
    const ratio = window.devicePixelRatio || 1;
    side = canvas.clientWidth;
    if (canvas.width !== Math.round(side * ratio)) {
      canvas.width = canvas.height = Math.round(side * ratio);
    }
    const style = getComputedStyle(canvas);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, side, side);
    const box = corners.map(project);
    const behind = box.reduce((best, one, i) => (one[2] > box[best][2] ? i : best), 0);
    const line = (front) => {
      context.strokeStyle = style.getPropertyValue("--line");
      context.lineWidth = 1.5;
      for (const [i, j] of edges) {
        if ((i === behind || j === behind) === front) continue;
        context.beginPath();
        context.moveTo(box[i][0], box[i][1]);
        context.lineTo(box[j][0], box[j][1]);
        context.stroke();
      }
    };
    line(false);
    const size = Math.max(1.3, side / 260);
    const order = [];
    for (let i = 0; i < n; i++) order.push([project(place(points, i)), i]);
    order.sort((a, b) => b[0][2] - a[0][2]);
    for (const [[x, y, , near], i] of order) {
      context.fillStyle = state.mapped ? colour(centers, points[7 * i + 6]) : colour(points, i);
      const r = size * near;
      context.fillRect(x - r, y - r, 2 * r, 2 * r);
    }
    line(true);
    const discs = [];
    for (let i = 0; i < k; i++) discs.push([project(place(centers, i)), i]);
    discs.sort((a, b) => b[0][2] - a[0][2]);
    const few = k <= 64;
    for (const [[x, y, , near], i] of discs) {
      const share = centers[7 * i + 6] / 255;
      const r = ((few ? 5 : 3) + (few ? 15 : 8) * share) * near * Math.min(1, side / 520);
      for (const [grown, fill] of [[2.6, "#22262a"], [1.4, "#fff"], [0, colour(centers, i)]]) {
        context.beginPath();
        context.arc(x, y, r + grown, 0, 7);
        context.fillStyle = fill;
        context.fill();
      }
    }
    context.fillStyle = style.getPropertyValue("--soft");
    context.font = "600 14px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    axes[state.mode].forEach((name, axis) => {
      const end = [-0.5, -0.5, -0.5];
      end[axis] = 0.57;
      const [x, y] = project(end);
      context.fillText(name, Math.min(side - 12, Math.max(12, x)), Math.min(side - 10, Math.max(10, y)));
    });
  };
  const redraw = () => {
    if (!queued) {
      queued = true;
      requestAnimationFrame(draw);
    }
  };
  const turn = (yaw, pitch) => {
    state.yaw += yaw;
    state.pitch = Math.max(-1.5, Math.min(1.5, state.pitch + pitch));
    redraw();
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    canvas.classList.add("held");
  });
  canvas.addEventListener("pointermove", (event) => {
    if (canvas.hasPointerCapture(event.pointerId)) turn(-event.movementX / 130, event.movementY / 130);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => canvas.classList.remove("held"));
  }
  const keys = {
    ArrowLeft: () => turn(0.1, 0),
    ArrowRight: () => turn(-0.1, 0),
    ArrowUp: () => turn(0, -0.1),
    ArrowDown: () => turn(0, 0.1),
    "+": () => { state.zoom = Math.min(4, state.zoom * 1.15); redraw(); },
    "-": () => { state.zoom = Math.max(0.5, state.zoom / 1.15); redraw(); },
    Home: () => { Object.assign(state, { yaw: 0.62, pitch: 0.42, zoom: 1 }); redraw(); },
  };
  canvas.addEventListener("keydown", (event) => {
    const act = keys[event.key === "=" ? "+" : event.key];
    if (act) {
      act();
      event.preventDefault();
    }
  });
  for (const input of document.querySelectorAll(".controls input")) {
    input.addEventListener("change", () => {
      if (input.type === "radio") state.mode = input.value;
      else state.mapped = input.checked;
      redraw();
    });
  }
  window.addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme:dark)").addEventListener("change", redraw);
  draw();
})();
