"""IR to IR: passes, the pipeline that orders them, its observers. Imports `tracegrad.ir` only."""
