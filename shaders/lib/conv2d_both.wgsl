// Both gradients of a convolution in one launch, for each way to read x: backward_v2.
//
//   invocations:  | tiles of gx: 8 pixels x 8 channels | tiles of gw: 8 weights x 8 channels of a chunk |
//                 0                                    gx_tiles, rounded up to whole workgroups
//
// The including file takes in lib/flat, lib/conv2d_tile and lib/conv2d_weight; params are those of the gather that makes gx.

/// The sizes of the convolution whose weight gradient is wanted.
fn weight_sizes() -> Params {
    var p = params;
    if params.turned == 1u {
        p.in_h = params.out_h;
        p.in_w = params.out_w;
        p.in_c = params.out_c;
        p.out_h = params.in_h;
        p.out_w = params.in_w;
        p.out_c = params.in_c;
        p.multiply = params.divide;
        p.divide = params.multiply;
        p.pad_h = i32(params.kernel_h) - 1 - params.pad_h;
        p.pad_w = i32(params.kernel_w) - 1 - params.pad_w;
    }
    return p;
}

@compute @workgroup_size(WG)
fn backward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    let gx_tiles = (gemm_rows() + TILE_M - 1u) / TILE_M * (gemm_cols() / (4u * TILE_N));
    let first = (gx_tiles + WG - 1u) / WG * WG; // of the weight's
    if at < first { gemm_tile(at); } else { weight_tile(at - first, weight_sizes()); }
}
