// Flat indices of invocations and workgroups.
//
// The host spreads more than 65535 workgroups over two axes; these undo it.

fn flat_index(gid: vec3<u32>, groups: vec3<u32>) -> u32 {
    return gid.y * (groups.x * WG) + gid.x;
}

fn flat_group(wid: vec3<u32>, groups: vec3<u32>) -> u32 {
    return wid.y * groups.x + wid.x;
}
