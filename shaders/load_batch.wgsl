// From the decoded slices on the device to a training batch: gathered, normalised, flipped and turned.
//
// `samples` holds one vec4 a sample: slice, row of `rescale`, turn + 4 * flips, image of the batch. `rescale` is
// [row, channel] of (low, high, scale, shift):  value = clamp(byte, low, high) * scale + shift.
//
//   turn   quarter turns counter-clockwise, 0..3        flips   bit 0: left-right, bit 1: top-bottom; flips come first
//
// Pixels are bytes packed four to a word: `images` [slice, y, x, c], `masks` [slice, y, x]. A set larger than one
// binding lies in several buffers: a launch fills the images of `rows` samples from `first_row` on, whose slices are in
// the bound one, and leaves all others alone.
// One invocation computes one pixel of one sample: all channels of x and the mask.
// @include flat

override WG: u32 = 64u;

struct Params {
    first_row: u32,
    rows: u32,
    height: u32,
    width: u32,
    channels: u32,
    source_channels: u32,
    order0: u32, // which channel of the file becomes channel 0, 1, 2
    order1: u32,
    order2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> images: array<u32>;
@group(0) @binding(2) var<storage, read> masks: array<u32>;
@group(0) @binding(3) var<storage, read> rescale: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> samples: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> x: array<f32>;
@group(0) @binding(6) var<storage, read_write> target_out: array<f32>;

@compute @workgroup_size(WG)
fn gather(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let flat = flat_index(gid, groups); // (row of samples, y, x)
    if flat >= params.rows * params.height * params.width { return; }
    let px = flat % params.width;
    let py = (flat / params.width) % params.height;
    let sample = samples[params.first_row + flat / (params.width * params.height)];
    let turn = sample.z & 3u;
    let flips = sample.z >> 2u;

    // Undo the turn (only square images are turned by odd quarters), then the flips.
    var sy = py;
    var sx = px;
    if turn == 1u { sy = px; sx = params.width - 1u - py; }
    if turn == 2u { sy = params.height - 1u - py; sx = params.width - 1u - px; }
    if turn == 3u { sy = params.height - 1u - px; sx = py; }
    if (flips & 1u) != 0u { sx = params.width - 1u - sx; }
    if (flips & 2u) != 0u { sy = params.height - 1u - sy; }

    let at = (sample.w * params.height + py) * params.width + px; // (n, y, x)
    let pixel = (sample.x * params.height + sy) * params.width + sx;
    for (var c = 0u; c < params.channels; c++) {
        let order = select(select(params.order2, params.order1, c == 1u), params.order0, c == 0u);
        let byte = pixel * params.source_channels + order;
        let value = f32((images[byte / 4u] >> (8u * (byte % 4u))) & 0xffu);
        let r = rescale[sample.y * params.channels + c];
        x[at * params.channels + c] = clamp(value, r.x, r.y) * r.z + r.w;
    }
    target_out[at] = f32((masks[pixel / 4u] >> (8u * (pixel % 4u))) & 0xffu);
}
