// The entry point of the weight gradient on matrix units, for each way to read x; only for images of 16-bit floats.
//
// The including file takes in lib/flat, and has what lib/conv2d_weight asks for; input and output channels divide by 8.
// @include weight_matrix
// @include conv2d_weight_terms
// @include matrix

/// A block of weights for a chunk of image rows of y; the last row of blocks is the bias.
@compute @workgroup_size(MATRIX_GROUP)
fn backward_weight_v6(me: Invocation) {
    let p = params;
    let mine = weight_group(p, flat_group(me.wid, me.groups), PANE_ROWS, PANE_COLS4);
    if mine.first >= mine.end { return; }
    let first = mine.first * p.out_w; // pixels of y
    let end = mine.end * p.out_w;
    if !mine.is_bias {
        weight_matrix(p, me, mine.first_row, mine.first_col4, first, end, mine.to);
    } else {
        bias_matrix(p, me.lid, mine.first_col4, first, end, mine.to);
    }
}
