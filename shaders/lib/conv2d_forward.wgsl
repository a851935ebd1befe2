// The entry points of forward by tiles, for each way to read x.
//
// The including file takes in lib/flat, lib/gemm_tile or lib/gemm_block, and lib/conv2d_statistics, and has what they ask for.
// @include gemm_forward

/// The engine's columns are channels.
fn store(row: u32, col4: u32, value: vec4<f32>) { store_at(pixel_of(row) * (params.out_c / 4u) + col4, col4, value); }

@compute @workgroup_size(GROUP)
fn forward_statistics_v2(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    tiles_with_statistics(flat_group(wid, groups), lid);
}
