"""Fast building blocks for generated code: `out=` everywhere, static workspaces.

Each is compared with the plain kernels in tests/backends/test_fast.py.
"""
