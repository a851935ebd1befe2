// From the decoded slices on the device to a training batch: gathered, normalised and augmented.
//
//   value = clamp(tone(grey(place)), low, high) * scale + shift        `rescale` is [row, channel] of (low, high, scale, shift)
//
//   place   where a pixel of the batch lies in its slice: turn and flips undone, then the affine map, then the elastic
//           displacement. In 1/65536 pixel and in whole numbers, so every device finds the same places and the same masks.
//   grey    the byte there; between pixels bilinear (exact in f32 too: 16 bits of weight times 8 of byte), the mask's
//           nearest; 0 outside of the slice.
//   tone    noise, brightness, contrast, gamma, in nnU-Net's order, between the patient's black (low) and white (high).
//
// A sample says in `changes` which of these it needs. Samples without any have an entry point of their own: software
// Vulkan pays for a branch that it does not take.
//
// Pixels are bytes packed four to a word: `images` [slice, y, x, c], `masks` [slice, y, x]. A set larger than one
// binding lies in several buffers: a launch fills the images of `rows` samples from `first_row` on, whose slices are in
// the bound one, and leaves all others alone.
// One invocation computes one pixel of one sample: all channels of x and the mask.
// @include flat
// @include element

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

const WARP: u32 = 1u; // bits of `changes`
const ELASTIC: u32 = 2u; // only together with WARP
const TONE: u32 = 4u;

struct Sample {
    slice: u32, // in the bound buffer
    group: u32, // row of `rescale`
    image: u32, // of x
    turn: u32,  // quarter turns counter-clockwise, 0..3, after the flips
    flips: u32, // bit 0: left-right, bit 1: top-bottom
    shows: u32, // two bits a channel: which channel it shows, 3: none (0 everywhere)
    changes: u32,
    seed: u32,
    // Column and row in the slice of the pixel (x, y) half pixels right of and below the centre: z + x * x + y * y.
    to_x: vec3<i32>,
    reach: i32, // of the elastic displacement at its largest: about 1/514 pixel
    to_y: vec3<i32>,
    cell: i32, // control points a pixel, in 1/2^20
    tones: array<vec4<f32>, 3>, // of each channel: noise, brightness, contrast, gamma
}

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> images: array<u32>;
@group(0) @binding(2) var<storage, read> masks: array<u32>;
@group(0) @binding(3) var<storage, read> rescale: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> samples: array<Sample>;
@group(0) @binding(5) var<storage, read_write> x: array<Element>;
@group(0) @binding(6) var<storage, read_write> target_out: array<f32>;

// A sample that is only flipped and turned: a pixel is one byte a channel, copied.
@compute @workgroup_size(WG)
fn gather(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let flat = flat_index(gid, groups); // (row of samples, y, x)
    if flat >= params.rows * params.height * params.width { return; }
    let px = flat % params.width;
    let py = (flat / params.width) % params.height;
    let sample = &samples[params.first_row + flat / (params.width * params.height)];
    let first_rescale = (*sample).group * params.channels;
    let source = undo(py, px, (*sample).turn, (*sample).flips);

    let at = ((*sample).image * params.height + py) * params.width + px; // (n, y, x)
    let pixel = ((*sample).slice * params.height + source.y) * params.width + source.x;
    for (var c = 0u; c < params.channels; c++) {
        let byte = pixel * params.source_channels + channel_of_file(c);
        let value = f32((images[byte / 4u] >> (8u * (byte % 4u))) & 0xffu);
        let r = rescale[first_rescale + c];
        x[at * params.channels + c] = Element(clamp(value, r.x, r.y) * r.z + r.w);
    }
    target_out[at] = f32((masks[pixel / 4u] >> (8u * (pixel % 4u))) & 0xffu);
}

// A sample with any of the `changes`, or with channels that show others.
@compute @workgroup_size(WG)
fn augment(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let flat = flat_index(gid, groups); // (row of samples, y, x)
    if flat >= params.rows * params.height * params.width { return; }
    let px = flat % params.width;
    let py = (flat / params.width) % params.height;
    let sample = &samples[params.first_row + flat / (params.width * params.height)];
    let slice = (*sample).slice;
    let changes = (*sample).changes;
    let source = vec2<i32>(undo(py, px, (*sample).turn, (*sample).flips));

    // In 1/65536 pixel; without a warp, the middle of the pixel.
    var place = source << vec2<u32>(16u);
    if (changes & WARP) != 0u {
        let half = 2 * source - vec2<i32>(i32(params.width) - 1, i32(params.height) - 1); // half pixels from the centre
        let to_x = (*sample).to_x;
        let to_y = (*sample).to_y;
        place = vec2<i32>(to_x.x * half.x + to_x.y * half.y + to_x.z, to_y.x * half.x + to_y.y * half.y + to_y.z);
    }
    if (changes & ELASTIC) != 0u {
        let field = displacement(source, (*sample).cell, (*sample).seed); // in 1/2^22, up to 255
        place += ((field >> vec2<u32>(15u)) * (*sample).reach) >> vec2<u32>(8u);
    }

    let at = ((*sample).image * params.height + py) * params.width + px; // (n, y, x)
    target_out[at] = f32(mask_byte(slice, (place + 32768) >> vec2<u32>(16u)));
    for (var c = 0u; c < params.channels; c++) {
        let shown = ((*sample).shows >> (2u * c)) & 3u;
        let r = rescale[(*sample).group * params.channels + min(shown, 2u)];
        var value = bilinear(slice, place, channel_of_file(shown));
        if (changes & TONE) != 0u {
            let tone = (*sample).tones[c];
            var grain = 0.0;
            if tone.x > 0.0 { grain = normal(py, px, (*sample).seed + 1u + c); }
            value = toned(value, r, tone, grain);
        }
        x[at * params.channels + c] = Element(select(clamp(value, r.x, r.y) * r.z + r.w, 0.0, shown == 3u));
    }
}

// Column and row of a pixel before the turn (only square images are turned by odd quarters) and the flips.
fn undo(py: u32, px: u32, turn: u32, flips: u32) -> vec2<u32> {
    var y = py;
    var x = px;
    if turn == 1u { y = px; x = params.width - 1u - py; }
    if turn == 2u { y = params.height - 1u - py; x = params.width - 1u - px; }
    if turn == 3u { y = params.height - 1u - px; x = py; }
    if (flips & 1u) != 0u { x = params.width - 1u - x; }
    if (flips & 2u) != 0u { y = params.height - 1u - y; }
    return vec2<u32>(x, y);
}

fn channel_of_file(c: u32) -> u32 {
    return select(select(params.order2, params.order1, c == 1u), params.order0, c == 0u);
}

fn outside(at: vec2<i32>) -> bool {
    // A negative number is a huge unsigned one.
    return u32(at.x) >= params.width || u32(at.y) >= params.height;
}

fn mask_byte(slice: u32, at: vec2<i32>) -> u32 {
    if outside(at) { return 0u; }
    let pixel = (slice * params.height + u32(at.y)) * params.width + u32(at.x);
    return (masks[pixel / 4u] >> (8u * (pixel % 4u))) & 0xffu;
}

fn image_byte(slice: u32, at: vec2<i32>, channel: u32) -> u32 {
    if outside(at) { return 0u; }
    let byte = ((slice * params.height + u32(at.y)) * params.width + u32(at.x)) * params.source_channels + channel;
    return (images[byte / 4u] >> (8u * (byte % 4u))) & 0xffu;
}

// The four bytes around a place, weighted by how near they are, in 1/256 pixel.
fn bilinear(slice: u32, place: vec2<i32>, channel: u32) -> f32 {
    let corner = place >> vec2<u32>(16u);
    let right = u32(place.x >> 8u) & 255u;
    let below = u32(place.y >> 8u) & 255u;
    var sum = 0u;
    for (var k = 0u; k < 4u; k++) {
        let weight = select(256u - below, below, k >= 2u) * select(256u - right, right, k % 2u == 1u);
        sum += weight * image_byte(slice, corner + vec2<i32>(i32(k % 2u), i32(k / 2u)), channel);
    }
    return f32(sum) / 65536.0;
}

// A smooth random field: control points on a coarse grid, each with two random numbers -255..255 (odd), joined by cubic
// B-splines. x and y in 1/2^22.
fn displacement(pixel: vec2<i32>, cell: i32, seed: u32) -> vec2<i32> {
    let on_grid = (pixel * cell) >> vec2<u32>(10u); // in 1/1024 cell
    let first = vec2<u32>(on_grid >> vec2<u32>(10u));
    let across = spline(on_grid.x & 1023);
    let down = spline(on_grid.y & 1023);
    var sum = vec2<i32>(0);
    for (var j = 0u; j < 4u; j++) {
        var row = vec2<i32>(0);
        for (var i = 0u; i < 4u; i++) {
            let bits = pcg3d(vec3<u32>(first.x + i, first.y + j, seed));
            row += across[i] * (2 * vec2<i32>(bits.xy >> vec2<u32>(24u)) - 255);
        }
        sum += down[j] * row;
    }
    return sum;
}

// Weights of four neighbouring control points at f/1024 of the way from the second to the third, in 1/2048.
fn spline(f: i32) -> vec4<i32> {
    let g = 1024 - f;
    return vec4<i32>(outer(g), inner(f), inner(g), outer(f)) >> vec4<u32>(19u);
}

fn outer(f: i32) -> i32 { return f * f * f / 6; } // f^3 / 6 in 1/2^30
fn inner(f: i32) -> i32 { return 715827883 - 1024 * f * f + f * f * f / 2; } // 2/3 - f^2 + f^3 / 2

// `r` is the patient's (low, high, scale, shift); the network sees the grey value -shift/scale as 0.
fn toned(grey: f32, r: vec4<f32>, tone: vec4<f32>, grain: f32) -> f32 {
    let span = r.y - r.x;
    let middle = select(r.x, -r.w / r.z, r.z > 0.0);
    var value = clamp(grey, r.x, r.y) + tone.x * span * grain;
    value = r.x + (value - r.x) * tone.y;
    value = middle + (value - middle) * tone.z;
    if tone.w != 1.0 && span > 0.0 { value = r.x + span * pow(clamp((value - r.x) / span, 0.0, 1.0), tone.w); }
    return value;
}

// A normal random number that belongs to a pixel and a seed (Box and Muller, 1958).
fn normal(y: u32, x: u32, seed: u32) -> f32 {
    let bits = pcg3d(vec3<u32>(x, y, seed));
    let uniform01 = (f32(bits.x >> 9u) + 0.5) / 8388608.0; // never 0 or 1
    let turn = f32(bits.y >> 8u) / 16777216.0 - 0.5;
    return sqrt(-2.0 * log(uniform01)) * cos_turn(turn);
}

// Cosine of -1/2 to 1/2 turn, by the series of the sine a quarter turn on. WGSL lets `cos` be wrong by 2^-11, and
// SwiftShader uses that: the noise would differ from device to device.
fn cos_turn(turn: f32) -> f32 {
    let x = 6.2831855 * (0.25 - abs(turn)); // at most a right angle: the first term left out is 6e-8
    let z = x * x;
    return x * (1.0 - z / 6.0 * (1.0 - z / 20.0 * (1.0 - z / 42.0 * (1.0 - z / 72.0 * (1.0 - z / 110.0)))));
}

// Three random words that belong to three words (Jarzynski and Olano, JCGT 2020).
fn pcg3d(key: vec3<u32>) -> vec3<u32> {
    var v = key * 1664525u + 1013904223u;
    v.x += v.y * v.z;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v ^= v >> vec3<u32>(16u);
    v.x += v.y * v.z;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    return v;
}
