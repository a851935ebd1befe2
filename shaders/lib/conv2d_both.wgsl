// Both gradients of a convolution in one launch, for each way to read x: backward_v2.
//
//   workgroups:  | tiles of gx: 8 pixels x 8 channels | tiles of gw: 8 weights x 8 channels of a chunk |
//                0                                    gemm_groups()
//
// The including file takes in lib/flat, lib/gemm, lib/conv2d_tile and the weights; params are those of the gather that makes gx.

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

@compute @workgroup_size(GROUP)
fn backward_v2(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let group = flat_group(wid, groups);
    let first = gemm_groups(); // of the weight's
    if group < first { gemm(group, lid); } else { weights(group - first, lid, weight_sizes()); }
}
