"""Which of the tracer's functions are not names of `torch.*`.

`nn.functional`, `linalg`, Tensor's methods and the library's own code use them; `tracegrad.*` does
not show them.
"""

ELSEWHERE = frozenset(
    """
    adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d affine_grid
    attention avg_pool2d avg_pool3d batch_norm_eval batch_norm_train bernoulli_p
    binary_cross_entropy_values bincount_sized cast contiguous cross_entropy_mean
    cross_entropy_rows eigh eigvalsh elu expand expand_as exponential fold_image gelu glu
    grid_sample gru_layer gumbel_softmax hardsigmoid hardswish hardtanh index interpolate inv
    is_contiguous leaky_relu linear local_response_norm logsigmoid lp_pool2d lstm_layer
    lstsq_solution mask_positions matrix_norm max_dim max_pool2d_with_indices
    max_pool3d_with_indices median_all median_dim min_dim mish multi_dot nanmedian_all
    nanmedian_dim normal_like normalize one_hot one_hot_classes pad pinv relu6 repeat
    repeat_interleave_each repeat_interleave_int reshape_as rnn_layer
    scaled_dot_product_attention silu softmin softplus softshrink softsign solve_triangular
    storage_offset stride svdvals tanhshrink type_as unfold_image uniform vector_norm view
    view_as
    """.split()
)
