// What the weight gradient of a convolution is the sum of, for blocks (lib/weight_block, lib/weight_matrix). A k is a pixel of y.
//
// The including file has what lib/conv2d_weight asks for; input channels divide by 4.

/// Weights of four input channels of one kernel position.
struct RowSource {
    ci4: u32,
    ky: u32,
    kx: u32,
}

fn row_source(p: Params, r: u32) -> RowSource {
    let tap = r / p.in_c;
    return RowSource((r % p.in_c) / 4u, tap / p.kernel_w, tap % p.kernel_w);
}

/// A pixel of y.
struct Term {
    n: u32,
    oy: u32,
    ox: u32,
}

fn term_of(p: Params, pixel: u32) -> Term {
    let row = pixel / p.out_w;
    return Term(row / p.out_h, row % p.out_h, pixel % p.out_w);
}

/// Without a branch, and without a division of whole numbers, which takes twenty instructions: right for sides up to 2^20, which the
/// host checks.
fn later(p: Params, here: Term, by: u32) -> Term {
    let ox = here.ox + by;
    let rows = u32((f32(ox) + 0.5) * (1.0 / f32(p.out_w)));
    let oy = here.oy + rows;
    let images = u32((f32(oy) + 0.5) * (1.0 / f32(p.out_h)));
    return Term(here.n + images, oy - images * p.out_h, ox - rows * p.out_w);
}

/// The pixel of x that a weight is multiplied with there, or -1 outside of the image.
fn source_pixel(p: Params, source: RowSource, here: Term) -> i32 {
    let iy = i32(here.oy * p.multiply + source.ky) - p.pad_h;
    let ix = i32(here.ox * p.multiply + source.kx) - p.pad_w;
    let inside = iy >= 0 && iy < i32(p.in_h) && ix >= 0 && ix < i32(p.in_w);
    return select(-1, (i32(here.n * p.in_h) + iy) * i32(p.in_w) + ix, inside);
}

fn row_quad(p: Params, source: RowSource, here: Term) -> vec4<f32> {
    let at = source_pixel(p, source, here);
    let x = x_of(x_norm(source.ci4, p.in_c / 4u), x_quad(u32(max(at, 0)), p.in_c / 4u, source.ci4));
    return select(vec4(0.0), x, at >= 0);
}

fn column_source(p: Params, col4: u32) -> u32 { return col4; }

fn column_quad(p: Params, col4: u32, pixel: u32) -> vec4<f32> {
    let quads = p.out_c / 4u;
    return gy_of(gy_norm(col4, quads), vec4<f32>(gy4[pixel * quads + col4]));
}

/// The bias is the sum of gy; of a transposed convolution, whose result is this x, that of x: then k counts x's pixels.
fn bias_quad(p: Params, col4: u32, k: u32) -> vec4<f32> {
    if p.sums_x == 0u { return column_quad(p, col4, k); }
    if col4 >= p.in_c / 4u { return vec4(0.0); } // the row is longer
    return x_quad(k, p.in_c / 4u, col4);
}

/// What a workgroup has to do, of blocks of `high` rows and `wide` vectors of columns.
struct WeightGroup {
    is_bias: bool, // the last row of blocks
    first_row: u32,
    first_col4: u32,
    first: u32, // image rows of y: first <= row < end
    end: u32,
    to: Destination,
}

/// p are forward's sizes.
fn weight_group(p: Params, group: u32, high: u32, wide: u32) -> WeightGroup {
    let rows = p.kernel_h * p.kernel_w * p.in_c;
    let cols4 = p.out_c / 4u;
    let across = (cols4 + wide - 1u) / wide;
    let down = (rows + high - 1u) / high + 1u;
    let chunk = group / (across * down);
    let down_at = (group / across) % down;
    let first = chunk * p.chunk_rows;
    let end = min(first + p.chunk_rows, p.batch * p.out_h);
    let to = Destination((p.first_chunk + chunk) * (rows + 1u), rows, cols4);
    return WeightGroup(down_at + 1u == down, down_at * high, (group % across) * wide, first, end, to);
}
