// The first half of a batch normalisation's gradient: what has to be summed up over all pixels, gb = sum of gv and
// gw = sum of gv * xhat. backward_sums leaves it by chunks of pixels, in a table [4 + 2 * chunks, C]:
//
//   row 0, 1, 2, 3   center, scale, shift and rstd of each channel: v = (x - center) * scale + shift, xhat = (x - center) * rstd
//   row 4 + 2 * k    sum of gv over chunk k
//   row 5 + 2 * k    sum of gv * xhat over chunk k
//
// There is no kernel to add the chunks up: each workgroup of backward_input does it for its own channels
// (lib/batch_norm_input). That is little work because there are few chunks, which are long and taken by large workgroups.
//
// The including file has images, channels, chunk, image_chunks, first_chunk, columns and eps in its Params, has the table
// as table_out and table_out4, and takes in lib/batch_norm.

/// Invocations of a workgroup where four channels are taken at a time: as many as WebGPU promises.
const WIDE: u32 = 256u;

/// Vectors of four channels that such a workgroup takes side by side, at most: 128 bytes.
const WIDE_COLUMNS: u32 = 8u;

var<workgroup> tile_sums: array<vec4<f32>, 2u * WIDE>;

/// What a channel is normalised with.
struct Affine { center: f32, scale: f32, shift: f32, rstd: f32 }
struct Affine4 { center: vec4<f32>, scale: vec4<f32>, shift: vec4<f32>, rstd: vec4<f32> }

fn affine(mean: f32, variance: f32, weight: f32, bias: f32) -> Affine {
    let rstd = 1.0 / sqrt(variance + params.eps);
    return Affine(mean, weight * rstd, bias, rstd);
}

fn affine4(mean: vec4<f32>, variance: vec4<f32>, weight: vec4<f32>, bias: vec4<f32>) -> Affine4 {
    let rstd = 1.0 / sqrt(variance + params.eps);
    return Affine4(mean, weight * rstd, bias, rstd);
}

/// One invocation leaves what it has summed up of a channel over a chunk of the launch.
fn leave_sums(chunk: u32, c: u32, per: Affine, sum: f32, product: f32) {
    let row = 4u + 2u * (params.first_chunk + chunk);
    table_out[row * params.channels + c] = sum;
    table_out[(row + 1u) * params.channels + c] = product * per.rstd;
    if row == 4u {
        table_out[c] = per.center;
        table_out[params.channels + c] = per.scale;
        table_out[2u * params.channels + c] = per.shift;
        table_out[3u * params.channels + c] = per.rstd;
    }
}

/// Blocks of `columns` vectors of channels, side by side.
fn blocks() -> u32 { return (params.channels / 4u + params.columns - 1u) / params.columns; }

/// Workgroups of backward_sums: blocks of one chunk, then those of the next.
fn sums_groups() -> u32 { return params.images * params.image_chunks * blocks(); }

/// What an invocation sums up: four channels of the pixels first, first + step, .. of a chunk (lib/columns).
struct Share {
    chunk: u32,
    quad: u32,    // of the channels; the last one where there is none
    inside: bool, // the last block may be too wide; its idle columns still reach the barriers
    first: u32,
    end: u32,
    step: u32,
}

fn share_of(group: u32, lid: u32) -> Share {
    let quads = params.channels / 4u;
    let chunk = group / blocks();
    let quad = (group % blocks()) * params.columns + lid % params.columns;
    let range = chunk_range(chunk);
    let end = select(0u, range.x + range.y, quad < quads);
    return Share(
        chunk, min(quad, quads - 1u), quad < quads, range.x + lid / params.columns, end, WIDE / params.columns
    );
}

/// The sums of each column over its rows, top to bottom, for the invocations of the first row: a fixed order, so the same
/// bits in every run.
fn wide_sums(sum: vec4<f32>, product: vec4<f32>, lid: u32) -> array<vec4<f32>, 2> {
    tile_sums[lid] = sum;
    tile_sums[WIDE + lid] = product;
    workgroupBarrier(); // all sums are in the tile
    var total = array(vec4(0.0), vec4(0.0));
    if lid < params.columns {
        for (var at = lid; at < WIDE; at += max(params.columns, 1u)) {
            total[0] += tile_sums[at];
            total[1] += tile_sums[WIDE + at];
        }
    }
    return total;
}

/// A workgroup leaves what its invocations have summed up.
fn leave_sums4(share: Share, per: Affine4, sum: vec4<f32>, product: vec4<f32>, lid: u32) {
    let total = wide_sums(sum, product, lid);
    if !share.inside || lid >= params.columns { return; }
    let quads = params.channels / 4u;
    let row = 4u + 2u * (params.first_chunk + share.chunk);
    table_out4[row * quads + share.quad] = total[0];
    table_out4[(row + 1u) * quads + share.quad] = total[1] * per.rstd;
    if row == 4u {
        table_out4[share.quad] = per.center;
        table_out4[quads + share.quad] = per.scale;
        table_out4[2u * quads + share.quad] = per.shift;
        table_out4[3u * quads + share.quad] = per.rstd;
    }
}
