// Depthwise 2-D convolution (each channel with its own kernel), stride 1, and its gradients. Layout NHWC, weights [ky, kx, c].
//
//   forward          y[n,oy,ox,c]  = bias[c] + sum over ky,kx of x[n, oy+ky-p, ox+kx-p, c] * w[ky,kx,c]
//   backward_input   gx[n,iy,ix,c] = sum over ky,kx of gy[n, iy+p-ky, ix+p-kx, c] * w[ky,kx,c]
//   backward_weight  gw[ky,kx,c]   = sum over n,oy,ox of x[n, oy+ky-p, ox+kx-p, c] * gy[n,oy,ox,c];  gb[c] = sum of gy
//                    as partial sums over chunks of image rows (n, oy); gb counts as one more kernel position.
//                    sum_chunks.wgsl adds the chunks up in a fixed order: no atomics, the same bits in every run.
//
// Where GELU follows (lib/gelu), forward_gelu also stores y = gelu(z), and the gradients above are those of z: gz = gy * slope(z).
//
// _v1  one invocation computes one element, or one partial sum.   _v2  four channels of it.
// backward_weight_gelu_v2 computes the sums of all positions of a kernel up to 3x3, so that it needs each gz once, and stores
// it for backward_input.
// Positions are u32: left of the image they wrap to huge values, so one comparison checks both sides.
// @include flat
// @include element
// @include gelu

override WG: u32 = 64u;

struct Params {
    batch: u32,
    in_h: u32,
    in_w: u32,
    out_h: u32,
    out_w: u32,
    channels: u32,
    kernel_h: u32,
    kernel_w: u32,
    padding: u32,
    has_bias: u32,
    chunk_rows: u32,  // backward_weight: image rows (n, oy) of a chunk
    chunks: u32,      // of all launches
    first_chunk: u32, // backward_weight: where this launch's chunks begin
}

@group(0) @binding(0) var<uniform> params: Params;

// ---- forward --------------------------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>; // the weight again where there is none
@group(0) @binding(4) var<storage, read_write> y: array<Element>;

fn convolved(at: u32) -> f32 {
    let c = at % params.channels;
    let pixel = at / params.channels; // (n, oy, ox)
    let ox = pixel % params.out_w;
    let row = pixel / params.out_w; // (n, oy)
    let oy = row % params.out_h;
    let n = row / params.out_h;
    var sum = 0.0;
    for (var ky = 0u; ky < params.kernel_h; ky++) {
        let iy = oy + ky - params.padding;
        for (var kx = 0u; kx < params.kernel_w; kx++) {
            let ix = ox + kx - params.padding;
            if iy < params.in_h && ix < params.in_w {
                let x_at = ((n * params.in_h + iy) * params.in_w + ix) * params.channels + c;
                sum += f32(x[x_at]) * weight[(ky * params.kernel_w + kx) * params.channels + c];
            }
        }
    }
    if params.has_bias == 1u { sum += bias[c]; }
    return sum;
}

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y) { return; }
    y[at] = Element(convolved(at));
}

@group(0) @binding(4) var<storage, read_write> z: array<Element>; // before GELU
@group(0) @binding(5) var<storage, read_write> activated: array<Element>;

@compute @workgroup_size(WG)
fn forward_gelu_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&z) { return; }
    let sum = convolved(at);
    z[at] = Element(sum);
    activated[at] = Element(gelu(sum));
}

@group(0) @binding(1) var<storage, read> x4: array<Element4>;
@group(0) @binding(2) var<storage, read> weight4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y4: array<Element4>;

fn convolved4(at: u32) -> vec4<f32> {
    let quads = params.channels / 4u;
    let c = at % quads;
    let pixel = at / quads; // (n, oy, ox)
    let ox = pixel % params.out_w;
    let row = pixel / params.out_w; // (n, oy)
    let oy = row % params.out_h;
    let n = row / params.out_h;
    var sum = vec4(0.0);
    for (var ky = 0u; ky < params.kernel_h; ky++) {
        let iy = oy + ky - params.padding;
        for (var kx = 0u; kx < params.kernel_w; kx++) {
            let ix = ox + kx - params.padding;
            if iy < params.in_h && ix < params.in_w {
                let x_at = ((n * params.in_h + iy) * params.in_w + ix) * quads + c;
                sum += vec4<f32>(x4[x_at]) * weight4[(ky * params.kernel_w + kx) * quads + c];
            }
        }
    }
    if params.has_bias == 1u { sum += bias4[c]; }
    return sum;
}

@compute @workgroup_size(WG)
fn forward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y4) { return; }
    y4[at] = Element4(convolved4(at));
}

@group(0) @binding(4) var<storage, read_write> z4: array<Element4>;
@group(0) @binding(5) var<storage, read_write> activated4: array<Element4>;

@compute @workgroup_size(WG)
fn forward_gelu_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&z4) { return; }
    let sum = convolved4(at);
    z4[at] = Element4(sum);
    activated4[at] = Element4(gelu4(sum));
}

// ---- backward_input -------------------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> gy: array<Element>;
@group(0) @binding(3) var<storage, read_write> gx: array<Element>;

@compute @workgroup_size(WG)
fn backward_input_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&gx) { return; }
    let c = at % params.channels;
    let pixel = at / params.channels; // (n, iy, ix)
    let ix = pixel % params.in_w;
    let row = pixel / params.in_w; // (n, iy)
    let iy = row % params.in_h;
    let n = row / params.in_h;
    var sum = 0.0;
    for (var ky = 0u; ky < params.kernel_h; ky++) {
        let oy = iy + params.padding - ky;
        for (var kx = 0u; kx < params.kernel_w; kx++) {
            let ox = ix + params.padding - kx;
            if oy < params.out_h && ox < params.out_w {
                let gy_at = ((n * params.out_h + oy) * params.out_w + ox) * params.channels + c;
                sum += f32(gy[gy_at]) * weight[(ky * params.kernel_w + kx) * params.channels + c];
            }
        }
    }
    gx[at] = Element(sum);
}

@group(0) @binding(1) var<storage, read> gy4: array<Element4>;
@group(0) @binding(3) var<storage, read_write> gx4: array<Element4>;

@compute @workgroup_size(WG)
fn backward_input_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&gx4) { return; }
    let quads = params.channels / 4u;
    let c = at % quads;
    let pixel = at / quads; // (n, iy, ix)
    let ix = pixel % params.in_w;
    let row = pixel / params.in_w; // (n, iy)
    let iy = row % params.in_h;
    let n = row / params.in_h;
    var sum = vec4(0.0);
    for (var ky = 0u; ky < params.kernel_h; ky++) {
        let oy = iy + params.padding - ky;
        for (var kx = 0u; kx < params.kernel_w; kx++) {
            let ox = ix + params.padding - kx;
            if oy < params.out_h && ox < params.out_w {
                let gy_at = ((n * params.out_h + oy) * params.out_w + ox) * quads + c;
                sum += vec4<f32>(gy4[gy_at]) * weight4[(ky * params.kernel_w + kx) * quads + c];
            }
        }
    }
    gx4[at] = Element4(sum);
}

// ---- backward_weight: partial sums ----------------------------------------------------------------------------

@group(0) @binding(2) var<storage, read> gy_of_x: array<Element>;
@group(0) @binding(3) var<storage, read_write> partials: array<f32>; // [chunk][ky, kx, then the bias][c]

/// The output columns whose input column lies inside the image for kernel column kx.
fn columns_inside(kx: u32) -> vec2<u32> {
    let reach = params.in_w + params.padding;
    return vec2(max(params.padding, kx) - kx, min(params.out_w, reach - min(kx, reach)));
}

@compute @workgroup_size(WG)
fn backward_weight_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    let kernel = params.kernel_h * params.kernel_w;
    let c = at % params.channels;
    let k = (at / params.channels) % (kernel + 1u);
    let chunk = at / (params.channels * (kernel + 1u));
    let rows = params.batch * params.out_h;
    let first = chunk * params.chunk_rows;
    if first >= rows { return; }
    let ky = k / params.kernel_w;
    let kx = k % params.kernel_w;
    let columns = columns_inside(kx);
    var total = 0.0;
    for (var row = first; row < min(first + params.chunk_rows, rows); row++) {
        // One image row at a time: a blocked sum.
        var sum = 0.0;
        let start = row * params.out_w;
        let iy = row % params.out_h + ky - params.padding;
        if k == kernel {
            for (var ox = 0u; ox < params.out_w; ox++) { sum += f32(gy_of_x[(start + ox) * params.channels + c]); }
        } else if iy < params.in_h {
            let x_start = ((row / params.out_h) * params.in_h + iy) * params.in_w + kx - params.padding;
            for (var ox = columns.x; ox < columns.y; ox++) {
                let g = f32(gy_of_x[(start + ox) * params.channels + c]);
                sum += f32(x[(x_start + ox) * params.channels + c]) * g;
            }
        }
        total += sum;
    }
    partials[at + params.first_chunk * (kernel + 1u) * params.channels] = total;
}

@group(0) @binding(2) var<storage, read> gy_of_x4: array<Element4>;
@group(0) @binding(3) var<storage, read_write> partials4: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn backward_weight_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    let kernel = params.kernel_h * params.kernel_w;
    let quads = params.channels / 4u;
    let c = at % quads;
    let k = (at / quads) % (kernel + 1u);
    let chunk = at / (quads * (kernel + 1u));
    let rows = params.batch * params.out_h;
    let first = chunk * params.chunk_rows;
    if first >= rows { return; }
    let ky = k / params.kernel_w;
    let kx = k % params.kernel_w;
    let columns = columns_inside(kx);
    var total = vec4(0.0);
    for (var row = first; row < min(first + params.chunk_rows, rows); row++) {
        // One image row at a time: a blocked sum.
        var sum = vec4(0.0);
        let start = row * params.out_w;
        let iy = row % params.out_h + ky - params.padding;
        if k == kernel {
            for (var ox = 0u; ox < params.out_w; ox++) { sum += vec4<f32>(gy_of_x4[(start + ox) * quads + c]); }
        } else if iy < params.in_h {
            let x_start = ((row / params.out_h) * params.in_h + iy) * params.in_w + kx - params.padding;
            for (var ox = columns.x; ox < columns.y; ox++) {
                sum += vec4<f32>(x4[(x_start + ox) * quads + c]) * vec4<f32>(gy_of_x4[(start + ox) * quads + c]);
            }
        }
        total += sum;
    }
    partials4[at + params.first_chunk * (kernel + 1u) * quads] = total;
}

@group(0) @binding(3) var<storage, read> kept4: array<Element4>; // z of the forward pass
@group(0) @binding(4) var<storage, read_write> gelu_partials4: array<vec4<f32>>; // as partials4
@group(0) @binding(5) var<storage, read_write> gz4: array<Element4>;

/// Rows and columns of the largest kernel that backward_weight_gelu_v2 takes.
const SIDE: u32 = 3u;

@compute @workgroup_size(WG)
fn backward_weight_gelu_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups); // (chunk, four channels)
    let quads = params.channels / 4u;
    let c = at % quads;
    let chunk = at / quads;
    let rows = params.batch * params.out_h;
    let first = chunk * params.chunk_rows;
    if first >= rows { return; }
    var totals: array<vec4<f32>, SIDE * SIDE>;
    var bias_total = vec4(0.0);
    for (var row = first; row < min(first + params.chunk_rows, rows); row++) {
        // One image row at a time: a blocked sum.
        var sums: array<vec4<f32>, SIDE * SIDE>;
        var bias_sum = vec4(0.0);
        for (var ox = 0u; ox < params.out_w; ox++) {
            let g_at = (row * params.out_w + ox) * quads + c;
            let g = vec4<f32>(gy_of_x4[g_at]) * slope4(vec4<f32>(kept4[g_at]));
            gz4[g_at] = Element4(g);
            bias_sum += g;
            for (var ky = 0u; ky < SIDE; ky++) {
                let iy = row % params.out_h + ky - params.padding;
                for (var kx = 0u; kx < SIDE; kx++) {
                    let ix = ox + kx - params.padding;
                    if ky < params.kernel_h && kx < params.kernel_w && iy < params.in_h && ix < params.in_w {
                        let x_at = (((row / params.out_h) * params.in_h + iy) * params.in_w + ix) * quads + c;
                        sums[ky * SIDE + kx] += vec4<f32>(x4[x_at]) * g;
                    }
                }
            }
        }
        bias_total += bias_sum;
        for (var k = 0u; k < SIDE * SIDE; k++) { totals[k] += sums[k]; }
    }
    let kernel = params.kernel_h * params.kernel_w;
    let to = (params.first_chunk + chunk) * (kernel + 1u) * quads + c;
    for (var ky = 0u; ky < SIDE; ky++) {
        for (var kx = 0u; kx < SIDE; kx++) {
            if ky < params.kernel_h && kx < params.kernel_w {
                gelu_partials4[to + (ky * params.kernel_w + kx) * quads] = totals[ky * SIDE + kx];
            }
        }
    }
    gelu_partials4[to + kernel * quads] = bias_total;
}
