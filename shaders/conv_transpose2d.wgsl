// Transposed 2-D convolution: each x pixel adds a kernel, scaled, to y. Layout NHWC, weights [ky, kx, co, ci].
//
//   forward           y[n, iy*s+ky-p, ix*s+kx-p, co] = bias[co] + sum over ky,kx,ci of x[n,iy,ix,ci] * w[ky,kx,co,ci]
//   transpose_weight  v[ci,ky,kx,co] = w[ky,kx,co,ci]: for v2
//
// It is the adjoint of a convolution from y to x with these weights, so its gradients need no kernels of their own: gx is
// that convolution of gy, gw the weight gradient of that convolution (shaders/conv2d.wgsl), gb a sum over pixels.
//
// _v1  one invocation gathers one element: of the kernel positions those count whose x lies on the grid of strides.
// _v2  kernel = stride, no padding: every x pixel makes a kernel's worth of y pixels that nobody else touches, so it is
//      a matrix product of pixels [N*H*W, ci] and v [ci, (ky,kx,co)] whose `store` deals the columns out:
//
//        x pixel ──> | ky0 kx0: co.. | ky0 kx1: co.. | ky1 kx0: co.. | ky1 kx1: co.. |      one row of the product
//                         y[2iy,2ix]    y[2iy,2ix+1]   y[2iy+1,2ix]   y[2iy+1,2ix+1]        for stride 2
// _v5  the same on matrix units, for images of 16-bit floats (lib/conv_transpose2d_matrix).
// @include flat
// @include element
// @include gemm
// @include gemm_forward
// @include conv_transpose2d_tile
// @include conv2d_eight_plain @half
// @include conv_transpose2d_matrix @half

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>; // the weight again where there is none
@group(0) @binding(4) var<storage, read_write> y: array<Element>;

/// The x row or column that reaches output position o through kernel position k, or -1.
fn source(o: u32, k: u32, extent: u32) -> i32 {
    let scaled = i32(o + params.padding) - i32(k);
    let divided = scaled / i32(params.stride);
    let inside = scaled >= 0 && divided * i32(params.stride) == scaled && divided < i32(extent);
    return select(-1, divided, inside);
}

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.batch * params.out_h * params.out_w * params.out_c { return; }
    let co = at % params.out_c;
    let pixel = at / params.out_c; // (n, oy, ox)
    let ox = pixel % params.out_w;
    let row = pixel / params.out_w; // (n, oy)
    let n = row / params.out_h;
    let oy = row % params.out_h;
    var sum = 0.0;
    for (var ky = 0u; ky < params.kernel_h; ky++) {
        let iy = source(oy, ky, params.in_h);
        for (var kx = 0u; kx < params.kernel_w; kx++) {
            let ix = source(ox, kx, params.in_w);
            if iy >= 0 && ix >= 0 {
                let x_at = ((n * params.in_h + u32(iy)) * params.in_w + u32(ix)) * params.in_c;
                let w_at = ((ky * params.kernel_w + kx) * params.out_c + co) * params.in_c;
                // One kernel position at a time: a blocked sum.
                var part = 0.0;
                for (var ci = 0u; ci < params.in_c; ci++) { part += f32(x[x_at + ci]) * weight[w_at + ci]; }
                sum += part;
            }
        }
    }
    if params.has_bias == 1u { sum += bias[co]; }
    y[at] = Element(sum);
}

@group(0) @binding(1) var<storage, read> weight_in: array<f32>;
@group(0) @binding(2) var<storage, read_write> transposed: array<f32>;

@compute @workgroup_size(WG)
fn transpose_weight(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups); // of the result [ci, (ky, kx, co)]
    let columns = gemm_cols();
    if at >= params.in_c * columns { return; }
    transposed[at] = weight_in[(at % columns) * params.in_c + at / columns];
}

@group(0) @binding(1) var<storage, read> x4: array<Element4>;
@group(0) @binding(2) var<storage, read> weight4: array<vec4<f32>>; // transposed
@group(0) @binding(3) var<storage, read> bias4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y4: array<Element4>;

fn load_a(at: u32, ci: u32) -> f32 { return f32(x[at + ci]); }
fn load_a4(at: u32, ci: u32) -> vec4<f32> { return vec4<f32>(x4[(at + ci) / 4u]); }
