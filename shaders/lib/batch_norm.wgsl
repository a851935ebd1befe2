// What a batch normalisation shares with the ops that are a batch normalisation and something more: chunks of pixels, the
// ReLU, and the last step of the gradient.
//
// The including file has image_pixels, channels, chunk, image_chunks, chunks, first_chunk and floor in its Params; the
// table [5, C] of backward_finalize as table and table4, and the partial sums as sums.

/// First pixel (counted from the first image of the launch) and number of pixels of a chunk.
fn chunk_range(chunk: u32) -> vec2<u32> {
    let start = (chunk % params.image_chunks) * params.chunk;
    let first = (chunk / params.image_chunks) * params.image_pixels + start;
    return vec2(first, min(params.chunk, params.image_pixels - start));
}

/// Leaves what a workgroup has summed up of four channels: partials[gv, gv * xhat][c][chunk].
fn store_sums4(chunk: u32, quad: u32, sum: vec4<f32>, product: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        let to = (quad * 4u + i) * params.chunks + params.first_chunk + chunk;
        sums[to] = sum[i];
        sums[to + params.channels * params.chunks] = product[i];
    }
}

fn activated(v: f32) -> f32 { return select(v, 0.0, v < params.floor); }
fn activated4(v: vec4<f32>) -> vec4<f32> { return select(v, vec4(0.0), v < vec4(params.floor)); }

/// gv: what of gy comes through the ReLU.
fn gated(gy: f32, v: f32) -> f32 { return select(gy, 0.0, v <= params.floor); }
fn gated4(gy: vec4<f32>, v: vec4<f32>) -> vec4<f32> { return select(gy, vec4(0.0), v <= vec4(params.floor)); }

/// What gx takes of a channel: v = (x - center) * scale + shift, and the shares of gb and gw (0 in eval mode).
struct Channel {
    center: f32,
    scale: f32,
    shift: f32,
    mean_gv: f32,
    slope: f32, // gx loses scale * slope for each unit of x - center
}

fn channel(c: u32) -> Channel {
    let channels = params.channels;
    return Channel(
        table[c], table[channels + c], table[2u * channels + c], table[3u * channels + c], table[4u * channels + c]
    );
}

fn input_gradient(per: Channel, x: f32, gy: f32) -> f32 {
    let off = x - per.center;
    return per.scale * (gated(gy, off * per.scale + per.shift) - per.mean_gv - off * per.slope);
}

/// The same of four channels.
struct Channel4 {
    center: vec4<f32>,
    scale: vec4<f32>,
    shift: vec4<f32>,
    mean_gv: vec4<f32>,
    slope: vec4<f32>,
}

fn channel4(q: u32) -> Channel4 {
    let quads = params.channels / 4u;
    return Channel4(table4[q], table4[quads + q], table4[2u * quads + q], table4[3u * quads + q], table4[4u * quads + q]);
}

fn input_gradient4(per: Channel4, x: vec4<f32>, gy: vec4<f32>) -> vec4<f32> {
    let off = x - per.center;
    return per.scale * (gated4(gy, off * per.scale + per.shift) - per.mean_gv - off * per.slope);
}
