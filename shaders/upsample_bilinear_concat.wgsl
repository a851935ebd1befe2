// Bilinear upsampling by 2 and a skip connection beside it along the channels, and the gradients. Layout NHWC.
//
//   forward    y[n,oy,ox] = (u[n,oy,ox], skip[n,oy,ox]),  u the upsampled x (lib/bilinear, either rule)
//   forward_statistics   the same, and for the batch norm that follows mean and sum of (y - mean)^2 per channel and chunk
//   backward   gx[n,iy,ix,c] = sum over the (oy,ox) that read (iy,ix) of gy[n,oy,ox,c] with the weights of u;
//              gskip = the other channels of gy
//
//          x ---> u ---+                  u is never written alone: it goes where it is needed, and the gradient is taken
//                      v                  from where it stands.
//            y [ u | skip ]
//
// _v1  one invocation computes one element of y; of gx or gskip.
// _v2  four channels at a time. Forward by tiles of 8 pixels and 8 channels, so that weights are computed once for them.
// @include flat
// @include element
// @include bilinear
// @include bilinear4
// @include tile_places
// @include tile_statistics

override WG: u32 = 64u;

const TILE_M: u32 = 8u;
const TILE_N: u32 = 2u;

struct Params {
    batch: u32,
    in_h: u32,
    in_w: u32,
    channels: u32,      // of x
    skip_channels: u32,
    align_corners: u32, // 0 or 1
    sums_first: u32,    // forward_statistics: chunks before this launch's
    sums_chunks: u32,   // of all launches
}

@group(0) @binding(0) var<uniform> params: Params;

fn align_corners() -> bool { return params.align_corners == 1u; }

/// The pixels and channels of y.
fn gemm_rows() -> u32 { return 4u * params.batch * params.in_h * params.in_w; }
fn gemm_cols() -> u32 { return params.channels + params.skip_channels; }

// ---- forward ---------------------------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> skip: array<Element>;
@group(0) @binding(3) var<storage, read_write> y: array<Element>;

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    let pixel = at / gemm_cols();
    let c = at % gemm_cols();
    if pixel >= gemm_rows() { return; }
    if c < params.channels {
        let p = place(pixel, 2u);
        y[at] = Element(sample(p.x, p.y, p.z, c));
    } else {
        y[at] = skip[pixel * params.skip_channels + c - params.channels];
    }
}

@group(0) @binding(1) var<storage, read> x4: array<Element4>;
@group(0) @binding(2) var<storage, read> skip4: array<Element4>;
@group(0) @binding(3) var<storage, read_write> y4: array<Element4>;
@group(0) @binding(4) var<storage, read_write> statistics: array<f32>;

/// The tile at (row, column) of the tiles. Both parts have a multiple of 8 channels: it lies in one of them.
fn join_tile(at: vec2<u32>) {
    let quads = gemm_cols() / 4u;
    let split = params.channels / 4u;
    let c = at.y * TILE_N;
    let rows = tile_rows(at);
    for (var m = 0u; m < rows; m++) {
        let pixel = at.x * TILE_M + m;
        let p = place(pixel, 2u);
        let v = position(p.y, params.in_h);
        let h = position(p.z, params.in_w);
        for (var j = 0u; j < TILE_N; j++) {
            if c < split {
                y4[pixel * quads + c + j] = Element4(between4(p.x, v, h, c + j));
            } else {
                y4[pixel * quads + c + j] = skip4[pixel * (quads - split) + c + j - split];
            }
        }
    }
}

@compute @workgroup_size(WG)
fn forward_v2(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    join_tile(tile_place(flat_group(wid, groups), lid));
}

@compute @workgroup_size(WG)
fn forward_statistics_v2(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let at = tile_place(flat_group(wid, groups), lid);
    join_tile(at);
    leave_statistics(lid, group_side(), at);
}

// ---- backward: all of gx, then all of gskip ----------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> gy: array<Element>;
@group(0) @binding(2) var<storage, read_write> gx: array<Element>;
@group(0) @binding(3) var<storage, read_write> gskip: array<Element>;

/// What of gy goes to u: all.
fn passed(n: u32, oy: u32, ox: u32, c: u32) -> f32 { return f32(gy[output(n, oy, ox) * gemm_cols() + c]); }

@compute @workgroup_size(WG)
fn backward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    let of_x = params.batch * params.in_h * params.in_w * params.channels;
    if at < of_x {
        let p = place(at / params.channels, 1u);
        gx[at] = Element(gathered(p.x, p.y, p.z, at % params.channels));
    } else if at - of_x < gemm_rows() * params.skip_channels {
        let pixel = (at - of_x) / params.skip_channels;
        gskip[at - of_x] = gy[pixel * gemm_cols() + params.channels + (at - of_x) % params.skip_channels];
    }
}

@group(0) @binding(1) var<storage, read> gy4: array<Element4>;
@group(0) @binding(2) var<storage, read_write> gx4: array<Element4>;
@group(0) @binding(3) var<storage, read_write> gskip4: array<Element4>;

fn passed4(n: u32, oy: u32, ox: u32, c: u32) -> vec4<f32> {
    return vec4<f32>(gy4[output(n, oy, ox) * (gemm_cols() / 4u) + c]);
}

@compute @workgroup_size(WG)
fn backward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    let quads = params.channels / 4u;
    let skip_quads = params.skip_channels / 4u;
    let of_x = params.batch * params.in_h * params.in_w * quads;
    if at < of_x {
        let p = place(at / quads, 1u);
        gx4[at] = Element4(gathered4(p.x, p.y, p.z, at % quads));
    } else if at - of_x < gemm_rows() * skip_quads {
        let pixel = (at - of_x) / skip_quads;
        gskip4[at - of_x] = gy4[pixel * (quads + skip_quads) + quads + (at - of_x) % skip_quads];
    }
}
