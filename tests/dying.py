"""A process that is killed at any step of its work on a folder, played within this one."""

import shutil
from pathlib import Path

STEPS = ("rename", "replace", "unlink", "mkdir")


class KilledError(BaseException):
    """The process ends here."""


class Dying:
    """Counts what a work does to the names in a folder, and ends it at the n-th step.

    Parameters
    ----------
    monkeypatch : pytest.MonkeyPatch
    folder : Path
        What is done elsewhere does not count.
    """

    def __init__(self, monkeypatch, folder):
        self.folder, self.left = folder, None
        for name in STEPS:
            monkeypatch.setattr(Path, name, self._step(getattr(Path, name)))
        self._rmtree = shutil.rmtree
        monkeypatch.setattr(shutil, "rmtree", self._removal)

    def _step(self, real):
        def step(path, *args, **more):
            if self.left is not None and str(path).startswith(str(self.folder)):
                if self.left == 0:
                    raise KilledError
                self.left -= 1
            return real(path, *args, **more)

        return step

    def _removal(self, path, *args, **more):
        if self.left == 0:
            raise KilledError  # a killed process does not clear up behind itself
        return self._rmtree(path, *args, **more)

    def every(self, work, most=300):
        """Do `work` on the folder as it is now, killed at its first step, its second, and so on.

        Parameters
        ----------
        work : callable
            Called without arguments; what it opens, it opens itself.
        most : int
            Steps that it may have.

        Yields
        ------
        int
            The step at which it was killed; the folder is then as the killed process left it.
        """
        saved = self.folder.with_name(f"{self.folder.name}-saved")
        shutil.copytree(self.folder, saved)
        for last in range(most):
            self._rmtree(self.folder)
            shutil.copytree(saved, self.folder)
            self.left = last
            try:
                work()
            except KilledError:
                self.left = None
                yield last
            else:
                assert self.left >= 0
                self.left = None
                return
        raise AssertionError("it never came to its end")
