/// The CPU backend in float64 behind plain functions, so that a .cu file can call it without including it.
#pragma once

#include <parscale/backend/backend.hpp>

namespace parscale::test::reference {

void run(const op::Embed<double>& a);
void run(const op::EmbedBackward<double, double>& a);
void run(const op::RmsNorm<double, double>& a);
void run(const op::RmsNormBackward<double, double>& a);
void run(const op::Linear<double>& a);
void run(const op::LinearInputGradient<double>& a);
void run(const op::LinearWeightGradient<double, double>& a);
void run(int head_dim, const op::Rotate<double>& a);
void run(const op::GatedMlp<double>& a);
void run(const op::GatedMlpBackward<double>& a);
void run(const op::GatedLinear<double>& a);
void run(const op::GatedLinearBackward<double>& a);
void run(const op::Silu<double>& a);
void run(const op::SiluBackward<double>& a);
void run(int replicas, const op::Merge<double, double>& a);
void run(int replicas, const op::MergeBackward<double, double>& a);
double run(const op::HeadLoss<double, double>& a);
void run(const op::AdamW<double, double>& a);

}  // namespace parscale::test::reference
