// The weight gradient of a convolution through workgroup memory: lib/conv2d_weight by blocks.
//
// The including file has what lib/conv2d_weight asks for; input channels divide by 4.
// @include weight_block
// @include conv2d_weight_terms

/// A block of weights for a chunk; the last row of blocks is the bias. p are forward's sizes.
fn weights(group: u32, lid: u32, p: Params) {
    let mine = weight_group(p, group, 4u * ROWS4, COLS4);
    if mine.first >= mine.end { return; }
    if !mine.is_bias {
        weight_block(p, lid, mine.first_row, mine.first_col4, mine.first * p.out_w, mine.end * p.out_w, mine.to);
    } else {
        // One image row of y meets so many pixels of x.
        let pixels = select(p.out_w, p.multiply * p.in_w, p.sums_x == 1u);
        bias_block(p, lid, COLS4, mine.first_col4, mine.first * pixels, mine.end * pixels, mine.to);
    }
}
