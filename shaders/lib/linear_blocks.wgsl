// The blocks of weights of a linear layer, for each way to read x: lib/weight_block with k as the number of a row.
//
// The including file says row_source, row_quad and sums_bias(chunk), whether gy is summed up, too; it has gy4, and inputs, outputs,
// rows, chunk_rows and first_chunk in its Params.
// @include weight_block

alias Term = u32; // a row
fn term_of(p: Params, row: u32) -> u32 { return row; }
fn later(p: Params, row: u32, by: u32) -> u32 { return row + by; }

fn column_source(p: Params, col4: u32) -> u32 { return col4; }
fn column_quad(p: Params, col4: u32, row: u32) -> vec4<f32> { return vec4<f32>(gy4[row * (p.outputs / 4u) + col4]); }
fn bias_quad(p: Params, col4: u32, row: u32) -> vec4<f32> { return column_quad(p, col4, row); }

/// A block of weights for a chunk of rows; the last row of blocks is the bias.
fn weights(group: u32, lid: u32) {
    let cols4 = params.outputs / 4u;
    let across = (cols4 + COLS4 - 1u) / COLS4;
    let down = (params.inputs + 4u * ROWS4 - 1u) / (4u * ROWS4) + 1u;
    let chunk = group / (across * down);
    let down_at = (group / across) % down;
    let first_col4 = (group % across) * COLS4;
    let first = chunk * params.chunk_rows;
    let end = min(first + params.chunk_rows, params.rows);
    let to = Destination((params.first_chunk + chunk) * (params.inputs + 1u), params.inputs, cols4);
    if first >= end { return; }
    if down_at + 1u < down {
        weight_block(params, lid, down_at * 4u * ROWS4, first_col4, first, end, to);
    } else if sums_bias(chunk) {
        bias_block(params, lid, COLS4, first_col4, first, end, to);
    }
}
