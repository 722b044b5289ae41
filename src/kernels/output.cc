#include "mergepipe/kernels/output.h"

#include <algorithm>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/output.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/checks.h"
#include "kernels/float_formats-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mergepipe {
namespace HWY_NAMESPACE {
namespace {

template <class From, class To>
HWY_INLINE typename To::Bits Convert(typename From::Bits bits) {
  if constexpr (std::is_same_v<From, To>) {
    return bits;
  } else if constexpr (std::is_same_v<From, F64>) {
    return To::FromDouble(From::ToDouble(bits));
  } else {
    return To::FromFloat(From::ToFloat(bits));
  }
}

struct Made {
  uint32_t nan = 0;
  uint32_t inf = 0;

  template <class Base, class Out>
  HWY_INLINE void Count(typename Base::Bits before, typename Out::Bits after) {
    const uint32_t finite = IsFinite<Base>(before) ? 1 : 0;
    nan += finite & (IsNan<Out>(after) ? 1u : 0u);
    inf += finite & (IsInf<Out>(after) ? 1u : 0u);
  }
};

template <class Base, class Out>
Made Merge(const std::byte* HWY_RESTRICT stored, const float* HWY_RESTRICT values,
           const float* HWY_RESTRICT delta, std::byte* HWY_RESTRICT out, size_t count) {
  Made made;
  for (size_t i = 0; i < count; ++i) {
    const auto before = Load<Base>(stored, i);
    const auto unchanged = Convert<Base, Out>(before);
    const auto changed = Out::FromFloat(values[i] + delta[i]);
    const auto after = delta[i] == 0.0f ? unchanged : changed;
    Store<Out>(after, out, i);
    made.Count<Base, Out>(before, after);
  }
  return made;
}

template <class From, class To>
Made ConvertRun(const std::byte* HWY_RESTRICT stored, std::byte* HWY_RESTRICT out, size_t count) {
  Made made;
  for (size_t i = 0; i < count; ++i) {
    const auto before = Load<From>(stored, i);
    const auto after = Convert<From, To>(before);
    Store<To>(after, out, i);
    made.Count<From, To>(before, after);
  }
  return made;
}

void MergeAny(DType base_dtype, const std::byte* stored, const float* values, const float* delta,
              DType out_dtype, std::byte* out, size_t count, NonFinite* result) {
  WithFormat(base_dtype, [&](auto base) HWY_ATTR {
    WithFormat(out_dtype, [&](auto to) HWY_ATTR {
      const Made made = Merge<decltype(base), decltype(to)>(stored, values, delta, out, count);
      *result = {made.nan, made.inf};
    });
  });
}

void ConvertAny(DType dtype, const std::byte* stored, DType out_dtype, std::byte* out, size_t count,
                NonFinite* result) {
  WithFormat(dtype, [&](auto from) HWY_ATTR {
    WithFormat(out_dtype, [&](auto to) HWY_ATTR {
      const Made made = ConvertRun<decltype(from), decltype(to)>(stored, out, count);
      *result = {made.nan, made.inf};
    });
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mergepipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mergepipe {
namespace {

// Runs below 2^32 elements: the loops count in 32 bits, to keep as many lanes as the elements have.
constexpr size_t kRun = size_t{1} << 30;

// Sum over the runs of `count` elements of body(first, length).
template <class Body>
NonFinite ForEachRun(size_t count, Body body) {
  NonFinite total;
  for (size_t first = 0; first < count; first += kRun) {
    total += body(first, std::min(kRun, count - first));
  }
  return total;
}

}  // namespace

HWY_EXPORT(MergeAny);
HWY_EXPORT(ConvertAny);

NonFinite WriteMerged(const BaseElements& base, std::span<const float> merged_delta,
                      DType out_dtype, std::span<std::byte> out) {
  const size_t count = merged_delta.size();
  RequireElements(base.dtype, base.stored, count);
  RequireElements(out_dtype, out, count);
  Require(base.values.size() == count);
  return ForEachRun(count, [&](size_t first, size_t length) {
    NonFinite made;
    HWY_DYNAMIC_DISPATCH(MergeAny)
    (base.dtype, base.stored.data() + first * DTypeSize(base.dtype), base.values.data() + first,
     merged_delta.data() + first, out_dtype, out.data() + first * DTypeSize(out_dtype), length,
     &made);
    return made;
  });
}

NonFinite ConvertStored(DType dtype, std::span<const std::byte> stored, DType out_dtype,
                        std::span<std::byte> out) {
  const size_t count = stored.size() / DTypeSize(dtype);
  RequireElements(dtype, stored, count);
  RequireElements(out_dtype, out, count);
  return ForEachRun(count, [&](size_t first, size_t length) {
    NonFinite made;
    HWY_DYNAMIC_DISPATCH(ConvertAny)
    (dtype, stored.data() + first * DTypeSize(dtype), out_dtype,
     out.data() + first * DTypeSize(out_dtype), length, &made);
    return made;
  });
}

}  // namespace mergepipe
#endif
