"""IR to IR: passes, the pipeline that orders them, and its observers. Imports `tracegrad.ir` only."""
