// The entry point of everything that the tile engine computes and nothing else.
//
// The including file takes in lib/flat and the engine, `// @include gemm`.

@compute @workgroup_size(GROUP)
fn forward_v2(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    gemm(flat_group(wid, groups), lid);
}
