"""What a run can be turned into: saved backends, words, arrays, tables and pictures."""
