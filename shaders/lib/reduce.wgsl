// Sum over the invocations of a workgroup, as a tree: a fixed order, so the same bits in every run.

var<workgroup> tile_reduce: array<f32, WG>;

fn workgroup_sum(value: f32, lid: u32) -> f32 {
    tile_reduce[lid] = value;
    workgroupBarrier(); // every value is in the tile
    for (var step = WG / 2u; step > 0u; step = step / 2u) {
        if lid < step { tile_reduce[lid] += tile_reduce[lid + step]; }
        workgroupBarrier(); // this level's sums are in before the next level reads them
    }
    let total = tile_reduce[0];
    workgroupBarrier(); // everyone has read the total before the tile is used again
    return total;
}
