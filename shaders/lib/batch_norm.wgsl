// What a batch normalisation shares with the ops that are a batch normalisation and something more: chunks of pixels, and
// the ReLU.
//
// The including file has image_pixels, channels, chunk, image_chunks and floor in its Params.

/// First pixel (counted from the first image of the launch) and number of pixels of a chunk.
fn chunk_range(chunk: u32) -> vec2<u32> {
    let start = (chunk % params.image_chunks) * params.chunk;
    let first = (chunk / params.image_chunks) * params.image_pixels + start;
    return vec2(first, min(params.chunk, params.image_pixels - start));
}

fn activated(v: f32) -> f32 { return select(v, 0.0, v < params.floor); }
fn activated4(v: vec4<f32>) -> vec4<f32> { return select(v, vec4(0.0), v < vec4(params.floor)); }

/// gv: what of gy comes through the ReLU.
fn gated(gy: f32, v: f32) -> f32 { return select(gy, 0.0, v <= params.floor); }
fn gated4(gy: vec4<f32>, v: vec4<f32>) -> vec4<f32> { return select(gy, vec4(0.0), v <= vec4(params.floor)); }
