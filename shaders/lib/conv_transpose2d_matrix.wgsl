// The entry point of a transposed convolution on matrix units, for each way to read x; only for images of 16-bit floats. Its weight is
// [(ky, kx, co), ci]: as it stands, what lib/conv2d_eight_plain wants of one tap.
//
// The including file takes in lib/flat and lib/conv_transpose2d_tile, and has what lib/gemm_matrix asks for.
// @include gemm_matrix
// @include matrix

@compute @workgroup_size(MATRIX_GROUP)
fn forward_v5(me: Invocation) {
    gemm_matrix(flat_group(me.wid, me.groups), me);
}
