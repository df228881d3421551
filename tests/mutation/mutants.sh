# The mutants: mutant WHAT FILE EDIT PROGRAM TEST
#   WHAT     what is broken, in words
#   FILE     the file to break, below include/parscale
#   EDIT     a sed script that breaks it
#   PROGRAM  the test file that must notice, below tests, without .cpp
#   TEST     how the name of one test begins that must fail

# Attention
mutant "the causal mask lets a token see the next one" backend/cpu/attention_places.hpp \
  's/return past + token + 1;/return past + std::min(token + 2, layout.tokens);/' \
  model/test_attention "Self-attention is causal"
mutant "the causal mask hides a token from itself" backend/cpu/attention_places.hpp \
  's/return past + token + 1;/return past + std::max<Index>(token, 1);/' \
  model/test_attention "Self-attention is causal"
mutant "a cut document sees the last token before it" backend/cpu/attention_places.hpp \
  's/return layout.starts ? layout.starts.data\[sequence \* layout.tokens + token\] : 0;/return layout.starts ? std::max(0, layout.starts.data[sequence * layout.tokens + token] - 1) : 0;/' \
  model/test_attention "Self-attention begins at a token's own document"
mutant "positions are off by the prefix" backend/cpu/rotate.hpp \
  's/layout.replicas : layout.tokens;/layout.replicas : layout.tokens + 5;/; s/return past + n % layout.tokens/return past + 5 + n % layout.tokens/' \
  model/test_attention "Self-attention is causal"
mutant "positions do not restart in a cut document" backend/cpu/rotate.hpp \
  's/ - (layout.starts ? layout.starts.data\[n\] : 0)//' \
  model/test_attention "Self-attention begins at a token's own document"
mutant "query heads are mapped to key heads the other way round" backend/cpu/attention.hpp \
  's/head = kv_head_ \* at_.group + h;/head = h * at_.kv_heads + kv_head_;/; s/kv_head_ \* at_.group + h, h \*/h * at_.kv_heads + kv_head_, h */' \
  model/test_attention "Self-attention is causal"
mutant "a replica reads the prefix of the next one" backend/cpu/attention_places.hpp \
  's|(stream / at.sequences \* at.kv_heads + kv_head) \* prefix|((stream / at.sequences + 1) % a.layout.replicas * at.kv_heads + kv_head) * prefix|' \
  model/test_attention "Self-attention is causal"
mutant "expanded attention counts its own key twice" backend/cpu/attention.hpp \
  's/if (p != replica)$//; s/if (p != replica) state/state/' \
  model/test_attention "Expanded self-attention"
mutant "the rotary embedding is not turned back in the backward" backend/cpu/rotate.hpp \
  's/a.inverse ? T(-1) : T(1)/T(1)/' \
  model/test_attention_gradients "The gradients of plain self-attention"
mutant "the backward of attention forgets 1/sqrt(D)" backend/cpu/attention_backward.hpp \
  's/(d_scores\[j\] - pull) \* scale;/(d_scores[j] - pull);/' \
  model/test_attention_gradients "The gradients of plain self-attention"
mutant "the biases of q, k, v are dropped" block/self_attention.hpp \
  's/\.bias = joined(w.q_bias, w.k_bias, w.v_bias),//' \
  model/test_attention "Self-attention is causal"
mutant "the sublayer rotates by token instead of replica" backend/cpu/rotate.hpp \
  's|if (a.by_replica) return row / layout.positions();||' \
  model/test_attention "The cross-replica sublayer"
mutant "the cache puts every token at its place in the call" backend/cpu/append.hpp \
  's/(a.layout.past ? a.layout.past.data\[sequence\] : 0) + row/0 * sequence + row/' \
  model/test_decoding "Cached decoding of ragged prompts"
mutant "decoding forgets where ragged prompts end" generate.hpp \
  's/past_\[b\] += lengths\[b\]/past_[b] += tokens/' \
  model/test_decoding "Cached decoding of ragged prompts"

# Norms, MLP, aggregation, head
mutant "the norm's epsilon is omitted" backend/cpu/rms_norm.hpp \
  's/ + static_cast<T>(a.eps)//' \
  model/test_block_gradients "RMSNorm divides by the root"
mutant "the norm's backward forgets what passes it by" backend/cpu/rms_norm.hpp \
  's/d_x\[j\] = d_residual\[j\] + (r/d_x[j] = (r/' \
  model/test_layer_gradients "The gradients of a plain decoder layer"
mutant "the aggregation takes two replicas for each other" backend/cpu/merge.hpp \
  's/share\[r\] \* streams\[j \* P + r\]/share[r] * streams[j * P + (r ^ 1) % P]/' \
  model/test_properties "An aggregation that listens to one replica"
mutant "the aggregation reads features replica by replica" backend/cpu/merge.hpp \
  's/streams\[j \* P + r\]/streams[r * hidden + j]/g' \
  model/test_properties "Replicas that nothing tells apart"
mutant "smoothing is forgotten" backend/cpu/merge.hpp \
  's/ \* static_cast<T>(1 - smoothing) + static_cast<T>(smoothing \/ replicas)/ + 0 * static_cast<T>(smoothing * replicas)/' \
  model/test_block_gradients "With smoothing 1"
mutant "a bias of the aggregation has no gradient" block/aggregation.hpp \
  's/\.d_bias = d_bias, //' \
  model/test_block_gradients "The gradients of the aggregation"
mutant "targets that do not count have a gradient" backend/cpu/head_loss.hpp \
  's/std::fill_n(logits.row(i), vocabulary, T(0));/std::fill_n(logits.row(i), vocabulary, T(1));/' \
  model/test_block_gradients "The gradients of the head's loss"
mutant "a token's replicas are embedded without their vectors' gradients" backend/cpu/embedding.hpp \
  's/d_replica\[j\] += d_out\[j\]/d_replica[j] += 0 * d_out[j]/' \
  model/test_block_gradients "The gradients of the embedding"

# The model and its parts
mutant "the target across a document's end counts" batch.hpp \
  's/if (!last \&\& !cut) targets/if (!last) targets/' \
  model/test_documents "The target across a document's end"
mutant "recomputation overwrites the gradient's stream" causal_lm.hpp \
  's/forward_layer(i, memory.again, memory, {})/forward_layer(i, memory.d_stream, memory, {})/' \
  model/test_model_gradients "Recomputing layers"
mutant "an empty list of layers means no layer" config.hpp \
  's/if (rule == Rule::every_layer) return true;//' \
  core/test_config "An empty list of layers"
mutant "the gradients of frozen maps shift those of the next" block/projection.hpp \
  's/column += map.features;/column += map.weight ? map.features : 0;/' \
  model/test_freezing "Every parameter trained alone"
mutant "top p ignores how much probability top k left" generate.hpp \
  's/sum < o.top_p \* total/sum < o.top_p/' \
  model/test_generate "Top p"
mutant "the norm of gradients is summed in a chunk a thread" backend/cpu/pointwise.hpp \
  's/constexpr Index chunks = 64;/const Index chunks = threads.count();/; s/double part\[chunks\] = {};/double part[64] = {};/' \
  model/test_threads "Logits, losses, gradients and weights"

# Training
mutant "weight decay touches norms" core/initialise.hpp \
  's/return !name.ends_with("bias") \&\& !name.ends_with("norm.weight");/return !name.ends_with("bias");/' \
  train/test_adamw "Weight decay touches matrices"
mutant "AdamW's rate is not corrected for the moments' start" backend/cpu/adamw.hpp \
  's|a.learning_rate / correction(a.beta1, a.step)|a.learning_rate|' \
  train/test_adamw "AdamW follows the scalar reference"
mutant "the update takes gradients that were not clipped" train/trainer.hpp \
  's/clip_factor(norm, options_.max_grad_norm), /1.0, /' \
  train/test_trainer "The reported norm"
mutant "gradients of the last step stay" store/local_store.hpp \
  's/^    accumulates_ = false;/    accumulates_ = true;/' \
  train/test_trainer "Steps are counted"
mutant "a gradient that is not finite is let through" train/trainer.hpp \
  's/if (!std::isfinite(sum)) fail_gradient/if (false) fail_gradient/' \
  train/test_trainer "A gradient that overflows"
mutant "warm-up ends one step early" train/schedule.hpp \
  's/done < warmup_steps)/done + 1 < warmup_steps)/' \
  train/test_schedule "Every other schedule warms up"
mutant "Philox does nine rounds" core/random.hpp \
  's/round < 10/round < 9/' \
  core/test_random "Philox 4x32-10"
