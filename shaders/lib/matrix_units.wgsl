// Matrices of UNIT x UNIT numbers on the matrix units of a GPU: the numbers of one matrix lie in the registers of a whole
// subgroup, which loads, multiplies and stores it together. No invocation knows which numbers it has.
//
// lib/matrix_plain has the same functions for devices without such units. Which of both a kernel is put together with is
// said where it is launched; UNIT, the types of matrices and how they are loaded stand in lib/matrix_units16 and lib/matrix_units8.
//
// coopLoadT and coopStoreT (T: row by row) take a place of workgroup memory and the length of a row; coopLoad takes a matrix column
// by column: in strips b's columns lie as a's rows do, across a's columns as b's rows.

struct Invocation {
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
}

fn subgroup_of(me: Invocation) -> u32 { return me.subgroup; }
fn subgroups_of(me: Invocation) -> u32 { return me.subgroups; }

fn multiply_add(a: MatrixA, b: MatrixB, c: MatrixC) -> MatrixC { return coopMultiplyAdd(a, b, c); }

fn leave_matrix(me: Invocation, c: MatrixC, at: u32) { coopStoreT(c, &matrix_c[at], C_ROW); }
