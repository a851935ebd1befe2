// Where a block of the weight gradient (lib/weight_block, lib/weight_matrix) goes, and the gradient of the bias, which is the row of
// blocks below the last. The including file has partial4.

/// Where the partial sums of a chunk go.
struct Destination {
    row: u32,   // that of weight row 0
    rows: u32,  // of weights, which divide by 4
    cols4: u32, // vectors of a row
}

/// Four rows of weights: all of them are there, or none.
fn store_weights(to: Destination, r: u32, col4: u32, m: mat4x4<f32>) {
    if r >= to.rows || col4 >= to.cols4 { return; }
    let at = (to.row + r) * to.cols4 + col4;
    partial4[at] = m[0];
    partial4[at + to.cols4] = m[1];
    partial4[at + 2u * to.cols4] = m[2];
    partial4[at + 3u * to.cols4] = m[3];
}

/// Invocations that sum up a bias, of a workgroup that has as many or more.
const BIAS_LANES: u32 = 64u;
var<workgroup> bias_sums: array<vec4<f32>, BIAS_LANES>;

/// The gradient of the bias, the row of partial sums behind those of the weights: `wide` vectors of it. Of the first BIAS_LANES invocations
/// each has the sum of every so many k for vector lid % wide.
fn leave_bias(lid: u32, wide: u32, first_col4: u32, sum: vec4<f32>, to: Destination) {
    if lid < BIAS_LANES { bias_sums[lid] = sum; }
    workgroupBarrier(); // the sums of all are in
    let col4 = first_col4 + lid;
    if lid >= wide || col4 >= to.cols4 { return; }
    var whole = vec4(0.0);
    for (var i = 0u; i < BIAS_LANES / wide; i++) { whole += bias_sums[i * wide + lid]; }
    partial4[(to.row + to.rows) * to.cols4 + col4] = whole;
}
