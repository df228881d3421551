// What a rank owns of a tensor has no shape: no block and no operation takes it for the tensor.
// expect: conversion from
#include <parscale/store/parameter_store.hpp>

void multiply_by(const parscale::Owned<float>& o_proj) { parscale::In<float> operand = o_proj.weight; }
