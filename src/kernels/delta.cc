#include "mergepipe/kernels/delta.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/delta.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/checks.h"
#include "kernels/float_formats-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mergepipe {
namespace HWY_NAMESPACE {
namespace {

template <class Expert, class Base>
void Subtract(const std::byte* HWY_RESTRICT expert, const std::byte* HWY_RESTRICT base,
              float* HWY_RESTRICT delta, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    delta[i] = Expert::ToFloat(Load<Expert>(expert, i)) - Base::ToFloat(Load<Base>(base, i));
  }
}

void SubtractAny(DType expert_dtype, const std::byte* expert, DType base_dtype,
                 const std::byte* base, float* delta, size_t count) {
  WithFormat(expert_dtype, [&](auto expert_format) HWY_ATTR {
    WithFormat(base_dtype, [&](auto base_format) HWY_ATTR {
      Subtract<decltype(expert_format), decltype(base_format)>(expert, base, delta, count);
    });
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mergepipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mergepipe {

HWY_EXPORT(SubtractAny);

void ComputeDelta(const StoredElements& expert, const StoredElements& base,
                  std::span<float> delta) {
  RequireElements(expert.dtype, expert.bytes, delta.size());
  RequireElements(base.dtype, base.bytes, delta.size());
  HWY_DYNAMIC_DISPATCH(SubtractAny)
  (expert.dtype, expert.bytes.data(), base.dtype, base.bytes.data(), delta.data(), delta.size());
}

}  // namespace mergepipe
#endif
