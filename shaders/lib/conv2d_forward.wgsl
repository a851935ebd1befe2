// The entry points of forward by tiles, for each way to read x.
//
// The including file takes in lib/flat, lib/gemm_tile, lib/gemm_shared and lib/conv2d_statistics, and has what they ask for.

@compute @workgroup_size(WG)
fn forward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    gemm_tile(flat_index(gid, groups));
}

@compute @workgroup_size(WG)
fn forward_v4(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    gemm_shared(flat_group(wid, groups), lid);
}

@compute @workgroup_size(WG)
fn forward_statistics_v2(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    tile_with_statistics(flat_group(wid, groups), lid);
}

@compute @workgroup_size(WG)
fn forward_statistics_v4(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    block_with_statistics(flat_group(wid, groups), lid);
}
