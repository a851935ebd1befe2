// What the forms of Winograd's forward and input gradient have in common: reading rows of x, and what is done along rows.
//
// The including file takes in lib/winograd and lib/epilogue, and has x, joined and table, and TILE_ROWS, the rows of pixels of a tile.

struct Params {
    in_h: u32,
    in_w: u32,
    in_c: u32,
    out_h: u32,
    out_w: u32,
    out_c: u32,
    pad_h: i32,
    pad_w: i32,
    has_bias: u32,
    accumulate: u32, // 1 if the result is added to what stands in y
    tiles_y: u32,    // rows of tiles of an image: out_h / TILE_ROWS, rounded up
    quads_x: u32,    // quads of a row of tiles: out_w / 8, rounded up
    first_quad: u32, // v3: quads before the slab
    quads: u32,      // quads of the launch
    groups: u32,     // v3: groups of the slab: quads / 2, rounded up
    kernels: u32,    // pairs (ci, co) whose weights are transformed; 0 where U is there already
    normed: u32,     // 1 if x is normalised where it is read, as in conv2d_normed.wgsl
    split: u32,      // channels of x where a second part follows, as in conv2d_joined.wgsl; else all
    floor: f32,      // with a batch norm, normalised numbers below this are 0
    sums_first: u32,  // v7, of the statistics that a workgroup leaves of its pixels: chunks before this launch's
    sums_chunks: u32, // and those of all launches
}

/// Where a quad stands: image, first row and column in y.
fn place(quad: u32) -> vec3<u32> {
    let row = quad / params.quads_x; // (n, ty)
    return vec3<u32>(row / params.tiles_y, TILE_ROWS * (row % params.tiles_y), 8u * (quad % params.quads_x));
}

// ---- V ----------------------------------------------------------------------------------------------------------

/// What a batch norm makes of a channel: v = (x - center) * scale + shift, and 0 below params.floor.
struct Norm {
    center: f32,
    scale: f32,
    shift: f32,
}

fn norm_of(ci: u32) -> Norm {
    if params.normed == 0u { return Norm(0.0, 1.0, 0.0); }
    return Norm(table[ci], table[params.in_c + ci], table[2u * params.in_c + ci]);
}

/// A quad lies under rows of 10 pixels: channel ci of those of row r. Around the image lie zeros. Which part of x has the channel
/// is asked once: ten reads behind one branch are under way together.
fn row_of_pixels(corner: vec3<u32>, r: u32, ci: u32, norm: Norm) -> array<f32, 10> {
    let iy = i32(corner.y + r) - params.pad_h;
    let left = i32(corner.z) - params.pad_w;
    let row_inside = (iy >= 0) & (iy < i32(params.in_h));
    let pixel = u32((i32(corner.x * params.in_h) + iy) * i32(params.in_w) + left);
    var read: array<f32, 10>;
    if ci < params.split {
        for (var c = 0u; c < 10u; c++) { read[c] = f32(x[(pixel + c) * params.split + ci]); }
    } else {
        let others = params.in_c - params.split;
        for (var c = 0u; c < 10u; c++) { read[c] = f32(joined[(pixel + c) * others + ci - params.split]); }
    }
    let normed = params.normed == 1u;
    var pixels: array<f32, 10>;
    for (var c = 0u; c < 10u; c++) {
        let ix = left + i32(c);
        let inside = row_inside & (ix >= 0) & (ix < i32(params.in_w));
        let v = (read[c] - norm.center) * norm.scale + norm.shift;
        pixels[c] = select(0.0, v, inside & !(normed & (v < params.floor)));
    }
    return pixels;
}

/// The same for a row of pixels.
fn of_row(pixels: array<f32, 10>) -> array<vec4<f32>, 4> {
    var d: array<vec4<f32>, 4>; // pixel c of each tile
    for (var c = 0u; c < 4u; c++) { d[c] = vec4<f32>(pixels[c], pixels[c + 2u], pixels[c + 4u], pixels[c + 6u]); }
    return of_pixels(d[0], d[1], d[2], d[3]);
}

// ---- U ----------------------------------------------------------------------------------------------------------

/// G times three weights.
fn of_weights(a: f32, b: f32, c: f32) -> vec4<f32> {
    return vec4<f32>(a, 0.5 * (a + b + c), 0.5 * (a - b + c), c);
}

// ---- y ----------------------------------------------------------------------------------------------------------

/// A^T times four numbers, of four channels.
fn of_products(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> array<vec4<f32>, 2> {
    return array<vec4<f32>, 2>(a + b + c, b - c - d);
}

/// Stores a row of a tile, of four channels; `first` is where its first pixel stands.
fn store_tile_row(first: vec3<u32>, co4: u32, pixels: array<vec4<f32>, 2>) {
    if first.y >= params.out_h { return; }
    let out_c4 = params.out_c / 4u;
    let y_at = ((first.x * params.out_h + first.y) * params.out_w + first.z) * out_c4 + co4;
    if first.z < params.out_w { store_at(y_at, co4, pixels[0]); }
    if first.z + 1u < params.out_w { store_at(y_at + out_c4, co4, pixels[1]); }
}
