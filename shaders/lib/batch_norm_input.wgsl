// The gradient of a batch normalisation's input, once the sums over all pixels are known.
//
// The including file has channels in its Params, the table [5, C] of backward_finalize as table and table4, and takes in
// lib/batch_norm.

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
