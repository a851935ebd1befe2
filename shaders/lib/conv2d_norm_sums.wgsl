// What the gradient behind a batch norm leaves for the batch norm's own: sums of gv and of gv * (x - center) per channel and
// chunk. gv is what of the gradient comes through the ReLU; a chunk is the pixels of one workgroup (lib/tile_groups).
// backward_merge of batch_norm.wgsl adds the chunks up.
//
// The including file takes in lib/flat, lib/conv2d_tile, lib/conv2d_both and lib/batch_norm_table4, has the gradient as y4, the
// sums as norm_sums [gv, gv * (x - center)][channel][chunk], and says
//   raw_x(at)   what the batch norm reads, where y4[at] is the gradient of what it makes of that
// @include tile_groups

var<workgroup> tile_gv: array<vec4<f32>, TILE_N * WG>;
var<workgroup> tile_products: array<vec4<f32>, TILE_N * WG>;

/// Both gradients, and the sums of the workgroups that make that of x.
fn both_gradients_with_sums(group: u32, lid: u32) {
    let groups = sums_groups();
    if group < groups {
        gemm_for_sums(group, lid);
        leave_norm_sums(tile_place(group, lid), lid);
    } else {
        weights(group - groups, lid, weight_sizes());
    }
}

fn leave_norm_sums(place: vec2<u32>, lid: u32) {
    let quads = gemm_cols() / 4u;
    let rows = select(0u, tile_rows(place), lid < WG); // further invocations have no tile of their own
    for (var j = 0u; j < TILE_N; j++) {
        let col4 = min(place.y * TILE_N + j, quads - 1u);
        let norm = norm4(col4, quads);
        var sum = vec4(0.0);
        var product = vec4(0.0);
        for (var m = 0u; m < TILE_M; m++) {
            if m < rows {
                let at = pixel_of(place.x * TILE_M + m) * quads + col4;
                let off = raw_x(at) - norm.center;
                let gv = gated4(norm, vec4<f32>(y4[at]), off); // as this invocation has just written it
                sum += gv;
                product += gv * off;
            }
        }
        if lid < WG {
            tile_gv[lid * TILE_N + j] = sum;
            tile_products[lid * TILE_N + j] = product;
        }
    }
    workgroupBarrier(); // the sums of every tile are in
    let side = group_side();
    if lid >= side || rows == 0u { return; }

    let tiles = WG / side; // one above the other
    for (var j = 0u; j < TILE_N; j++) {
        var sum = vec4(0.0);
        var product = vec4(0.0);
        for (var t = 0u; t < tiles; t++) {
            sum += tile_gv[(t * side + lid) * TILE_N + j];
            product += tile_products[(t * side + lid) * TILE_N + j];
        }
        for (var i = 0u; i < 4u; i++) {
            let c = (place.y * TILE_N + j) * 4u + i;
            norm_sums[sum_place(0u, c, place, tiles)] = sum[i];
            norm_sums[sum_place(1u, c, place, tiles)] = product[i];
        }
    }
}

@compute @workgroup_size(GROUP)
fn backward_sums_v2(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    both_gradients_with_sums(flat_group(wid, groups), lid);
}
