// What images and their gradients are made of in memory. With mixed precision the loader writes f16 here (and `enable f16;`
// above), for kernels that are given such tensors. Arithmetic is always f32: a kernel converts where it reads, f32(x[at]) and
// vec4<f32>(x4[at]), and where it writes, Element(sum) and Element4(sums); in this file's own form that is nothing.
alias Element = f32; // @half f16
alias Element4 = vec4<f32>; // @half vec4<f16>
