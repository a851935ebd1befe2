// Sum of two tensors with PyTorch's broadcasting, the same in place, and the gradient of a broadcast operand.
//
//   forward  y[n,y,x,c]  = a[..] + b[..]; an operand with extent 1 along an axis has stride 0 there
//   assign   sum[i]      = sum[i] + added[i]
//   reduce   g[o,part,i] = sum over k = part, part + parts, .. < count of gy[o,k,i]
//
// One invocation computes one element of its output; in the _v2 entries four, and the operands have the same shape.
// `reduce` takes adjacent broadcast axes together as `count` and adds at most 64 elements in a row. The host runs it
// again over its own result until parts = 1, so the order of the sum is fixed and no f32 chain is long.
// Extents of outputs come from the bindings (arrayLength).
// @include flat
// @include element

override WG: u32 = 64u;

struct Params {
    height: u32,
    width: u32,
    channels: u32,
    a_batch: u32, // strides of a along n, y, x, c; 0 where a is broadcast
    a_row: u32,
    a_column: u32,
    a_channel: u32,
    b_batch: u32,
    b_row: u32,
    b_column: u32,
    b_channel: u32,
}

struct ReduceParams {
    count: u32, // elements to add up, of the merged broadcast axes
    inner: u32, // elements of the axes behind them
    parts: u32, // partial sums kept of each `count`
}

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> a: array<Element>;
@group(0) @binding(2) var<storage, read> b: array<Element>;
@group(0) @binding(3) var<storage, read_write> sums: array<Element>;

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&sums) { return; }
    let c = at % params.channels;
    let pixel = at / params.channels; // (n, y, x)
    let x = pixel % params.width;
    let row = pixel / params.width; // (n, y)
    let y = row % params.height;
    let n = row / params.height;
    let a_at = n * params.a_batch + y * params.a_row + x * params.a_column + c * params.a_channel;
    let b_at = n * params.b_batch + y * params.b_row + x * params.b_column + c * params.b_channel;
    sums[at] = Element(f32(a[a_at]) + f32(b[b_at]));
}

@group(0) @binding(1) var<storage, read> a4: array<Element4>;
@group(0) @binding(2) var<storage, read> b4: array<Element4>;
@group(0) @binding(3) var<storage, read_write> sums4: array<Element4>;

@compute @workgroup_size(WG)
fn forward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&sums4) { return; }
    sums4[at] = Element4(vec4<f32>(a4[at]) + vec4<f32>(b4[at]));
}

@group(0) @binding(1) var<storage, read> added: array<Element>;
@group(0) @binding(2) var<storage, read_write> sum: array<Element>;

@compute @workgroup_size(WG)
fn assign_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&sum) { return; }
    sum[at] = Element(f32(sum[at]) + f32(added[at]));
}

@group(0) @binding(1) var<storage, read> added4: array<Element4>;
@group(0) @binding(2) var<storage, read_write> sum4: array<Element4>;

@compute @workgroup_size(WG)
fn assign_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&sum4) { return; }
    sum4[at] = Element4(vec4<f32>(sum4[at]) + vec4<f32>(added4[at]));
}

@group(0) @binding(0) var<uniform> sizes: ReduceParams;

@group(0) @binding(1) var<storage, read> gy: array<Element>; // or sums of it, which are f32 like g
@group(0) @binding(2) var<storage, read_write> g: array<f32>;

@compute @workgroup_size(WG)
fn reduce(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&g) { return; }
    let i = at % sizes.inner;
    let rest = at / sizes.inner; // (o, part)
    let part = rest % sizes.parts;
    let o = rest / sizes.parts;
    let start = o * sizes.count * sizes.inner + i;
    var total = 0.0;
    for (var k = part; k < sizes.count; k += sizes.parts) { total += f32(gy[start + k * sizes.inner]); }
    g[at] = total;
}
