"""Fast building blocks for generated code: `out=` everywhere, static workspaces.

A plan is made once for its shapes, owns its workspace (`nbytes`), and is called with arrays and
outs; one call of it runs at a time. Functions take outs and scratch. Compared with the plain
kernels in tests/backends/test_fast.py.

conv.ConvPlan                                `conv` and its gradients, by what the shapes ask for
windows.WindowMax, WindowSum, SelectScatter
attention.Attention, AttentionBackward       `sdpa`, `sdpa_backward`
lstm.LstmForward, LstmBackward               `lstm`, `lstm_backward`
matmul.share_matmul                          a product shared by the pool
reduce.sum_first, add_rows                   a sum as a product; the gradient of an embedding
special.erf, gelu, sigmoid                   tile formulas
random.bits_into, dropout_tile               Threefry
blas, pool, work                             threads
"""
