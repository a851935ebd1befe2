// The entry points of forward by tiles, for each way to read x.
//
// The including file takes in lib/flat, lib/gemm_tile or lib/gemm_block, and lib/conv2d_statistics, and has what they ask for.
// @include gemm_forward

@compute @workgroup_size(GROUP)
fn forward_statistics_v2(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    tiles_with_statistics(flat_group(wid, groups), lid);
}
