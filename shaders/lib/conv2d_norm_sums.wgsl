// What the gradient behind a batch norm leaves for the batch norm's own: sums of gv and of gv * (x - center) per channel and
// chunk. gv is what of the gradient comes through the ReLU; a chunk is the pixels of one workgroup. backward_merge of
// batch_norm.wgsl adds the chunks up.
//
// The including file takes in lib/flat, lib/conv2d_tile, lib/conv2d_both and lib/batch_norm_table4, has the gradient as y4, the
// sums as norm_sums [gv, gv * (x - center)][channel][chunk], and says
//   raw_x(at)   what the batch norm reads, where y4[at] is the gradient of what it makes of that

var<workgroup> tile_gv: array<vec4<f32>, TILE_N * WG>;
var<workgroup> tile_products: array<vec4<f32>, TILE_N * WG>;

/// Both gradients, and the sums of the workgroups that make that of x. Column tiles are a power of two, as in
/// lib/conv2d_statistics.
fn both_gradients_with_sums(group: u32, lid: u32) {
    both_gradients(group * WG + lid);
    if group * WG < gx_invocations() { leave_norm_sums(group * WG + lid, lid); }
}

fn leave_norm_sums(tile: u32, lid: u32) {
    let quads = params.out_c / 4u;
    let col_tiles = max(quads / TILE_N, 1u);
    let first = (tile / col_tiles) * TILE_M;
    let col4 = (tile % col_tiles) * TILE_N;
    let rows = min(TILE_M, gemm_rows() - min(first, gemm_rows())); // none where there is no tile
    for (var j = 0u; j < TILE_N; j++) {
        let norm = norm4(col4 + j, quads);
        var sum = vec4(0.0);
        var product = vec4(0.0);
        for (var m = 0u; m < rows; m++) {
            let at = (first + m) * quads + col4 + j;
            let off = raw_x(at) - norm.center;
            let gv = gated4(norm, vec4<f32>(y4[at]), off); // as this invocation has just written it
            sum += gv;
            product += gv * off;
        }
        tile_gv[lid * TILE_N + j] = sum;
        tile_products[lid * TILE_N + j] = product;
    }
    workgroupBarrier(); // the sums of every tile are in
    let side = min(col_tiles, WG);
    if lid >= side || rows == 0u { return; }

    let tiles = WG / side; // one above the other
    let chunk = first / (TILE_M * tiles);
    let chunks = (gemm_rows() + TILE_M * tiles - 1u) / (TILE_M * tiles);
    for (var j = 0u; j < TILE_N; j++) {
        var sum = vec4(0.0);
        var product = vec4(0.0);
        for (var t = 0u; t < tiles; t++) {
            sum += tile_gv[(t * side + lid) * TILE_N + j];
            product += tile_products[(t * side + lid) * TILE_N + j];
        }
        for (var i = 0u; i < 4u; i++) {
            let to = ((col4 + j) * 4u + i) * chunks + chunk;
            norm_sums[to] = sum[i];
            norm_sums[to + params.out_c * chunks] = product[i];
        }
    }
}

@compute @workgroup_size(WG)
fn backward_sums_v2(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    both_gradients_with_sums(flat_group(wid, groups), lid);
}
