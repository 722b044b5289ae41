#include "mergepipe/kernels/output.h"

#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/output.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/checks.h"
#include "kernels/vector_formats-inl.h"

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

// Elements that are worked on together, so that they are looked at again in the first-level cache.
constexpr size_t kRun = 2048;

struct Made {
  uint64_t nan = 0;
  uint64_t inf = 0;
};

template <class Base, class Out>
void CountMade(const std::byte* HWY_RESTRICT stored, const std::byte* HWY_RESTRICT out,
               size_t count, Made& made) {
  if (LargestMagnitude<Out>(out, count) < Out::kInfinity) return;
  for (size_t i = 0; i < count; ++i) {
    if (!IsFinite<Base>(Load<Base>(stored, i))) continue;
    const auto after = Load<Out>(out, i);
    made.nan += IsNan<Out>(after) ? 1 : 0;
    made.inf += IsInf<Out>(after) ? 1 : 0;
  }
}

template <class Base, class Out>
void MergeRun(const std::byte* HWY_RESTRICT stored, const float* HWY_RESTRICT delta,
              std::byte* HWY_RESTRICT out, size_t begin, size_t count) {
  for (size_t i = begin; i < count; ++i) {
    const auto before = Load<Base>(stored, i);
    const auto unchanged = Convert<Base, Out>(before);
    const auto changed = Out::FromFloat(Base::ToFloat(before) + delta[i]);
    Store<Out>(delta[i] == 0.0f ? unchanged : changed, out, i);
  }
}

template <class From, class To>
void ConvertRun(const std::byte* HWY_RESTRICT stored, std::byte* HWY_RESTRICT out, size_t begin,
                size_t count) {
  for (size_t i = begin; i < count; ++i)
    Store<To>(Convert<From, To>(Load<From>(stored, i)), out, i);
}

#if HWY_TARGET != HWY_SCALAR

// As BF16::FromFloat, but what a NaN becomes is given.
template <class Bits>
HWY_INLINE Bits RoundToBf16(FloatVector value, Bits nan) {
  const hn::RebindToUnsigned<FloatTag> du;
  const auto bits = hn::BitCast(du, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  const auto rounded =
      hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, uint32_t{0x7fff}))));
  return hn::IfThenElse(hn::RebindMask(du, hn::Eq(value, value)), rounded, nan);
}

// As MergeRun; how many elements were made, the others being too few for a vector.
template <class Base>
size_t MergeToBf16(const std::byte* HWY_RESTRICT stored, const float* HWY_RESTRICT delta,
                   std::byte* HWY_RESTRICT out, size_t count) {
  const FloatTag d;
  const hn::RebindToUnsigned<FloatTag> du;
  const hn::Rebind<uint16_t, FloatTag> d16;
  const size_t whole = count / kVectorStep * kVectorStep;
  for (size_t i = 0; i < whole; i += hn::Lanes(d)) {
    const auto before = LoadFloats<Base>(d, stored, i);
    const auto change = hn::LoadU(d, delta + i);
    const auto same = hn::Eq(change, hn::Zero(d));
    const auto value = hn::IfThenElse(same, before, hn::Add(before, change));
    auto nan = hn::Set(du, uint32_t{0x7fc0});
    if constexpr (std::is_same_v<Base, BF16>) {
      nan = hn::IfThenElse(hn::RebindMask(du, same), hn::ShiftRight<16>(hn::BitCast(du, before)),
                           nan);
    }
    hn::StoreU(hn::TruncateTo(d16, RoundToBf16(value, nan)), d16,
               reinterpret_cast<uint16_t*>(out) + i);
  }
  return whole;
}

template <class From>
size_t ConvertToBf16(const std::byte* HWY_RESTRICT stored, std::byte* HWY_RESTRICT out,
                     size_t count) {
  const FloatTag d;
  const hn::RebindToUnsigned<FloatTag> du;
  const hn::Rebind<uint16_t, FloatTag> d16;
  const auto nan = hn::Set(du, uint32_t{0x7fc0});
  const size_t whole = count / kVectorStep * kVectorStep;
  for (size_t i = 0; i < whole; i += hn::Lanes(d)) {
    const auto bits = RoundToBf16(LoadFloats<From>(d, stored, i), nan);
    hn::StoreU(hn::TruncateTo(d16, bits), d16, reinterpret_cast<uint16_t*>(out) + i);
  }
  return whole;
}

#else

template <class Base>
size_t MergeToBf16(const std::byte*, const float*, std::byte*, size_t) {
  return 0;
}

template <class From>
size_t ConvertToBf16(const std::byte*, std::byte*, size_t) {
  return 0;
}

#endif

template <class Format>
constexpr bool kHasVectors = !std::is_same_v<Format, F64>;

template <class Base, class Out>
void MergeAll(const std::byte* stored, const float* delta, std::byte* out, size_t count,
              Made& made) {
  for (size_t begin = 0; begin < count; begin += kRun) {
    const size_t length = count - begin < kRun ? count - begin : kRun;
    const std::byte* from = stored + begin * sizeof(typename Base::Bits);
    std::byte* to = out + begin * sizeof(typename Out::Bits);
    size_t whole = 0;
    if constexpr (std::is_same_v<Out, BF16> && kHasVectors<Base>) {
      whole = MergeToBf16<Base>(from, delta + begin, to, length);
    }
    MergeRun<Base, Out>(from, delta + begin, to, whole, length);
    CountMade<Base, Out>(from, to, length, made);
  }
}

template <class From, class To>
void ConvertAll(const std::byte* stored, std::byte* out, size_t count, Made& made) {
  for (size_t begin = 0; begin < count; begin += kRun) {
    const size_t length = count - begin < kRun ? count - begin : kRun;
    const std::byte* from = stored + begin * sizeof(typename From::Bits);
    std::byte* to = out + begin * sizeof(typename To::Bits);
    size_t whole = 0;
    if constexpr (std::is_same_v<To, BF16> && kHasVectors<From> && !std::is_same_v<From, To>) {
      whole = ConvertToBf16<From>(from, to, length);
    }
    ConvertRun<From, To>(from, to, whole, length);
    if constexpr (!std::is_same_v<From, To>) CountMade<From, To>(from, to, length, made);
  }
}

void MergeAny(DType base_dtype, const std::byte* stored, const float* delta, DType out_dtype,
              std::byte* out, size_t count, NonFinite* result) {
  WithFormat(base_dtype, [&](auto base) HWY_ATTR {
    WithFormat(out_dtype, [&](auto to) HWY_ATTR {
      Made made;
      MergeAll<decltype(base), decltype(to)>(stored, delta, out, count, made);
      *result = {made.nan, made.inf};
    });
  });
}

void ConvertAny(DType dtype, const std::byte* stored, DType out_dtype, std::byte* out, size_t count,
                NonFinite* result) {
  WithFormat(dtype, [&](auto from) HWY_ATTR {
    WithFormat(out_dtype, [&](auto to) HWY_ATTR {
      Made made;
      ConvertAll<decltype(from), decltype(to)>(stored, out, count, made);
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

HWY_EXPORT(MergeAny);
HWY_EXPORT(ConvertAny);

NonFinite WriteMerged(const StoredElements& base, std::span<const float> merged_delta,
                      DType out_dtype, std::span<std::byte> out) {
  const size_t count = merged_delta.size();
  RequireElements(base.dtype, base.bytes, count);
  RequireElements(out_dtype, out, count);
  NonFinite made;
  HWY_DYNAMIC_DISPATCH(MergeAny)
  (base.dtype, base.bytes.data(), merged_delta.data(), out_dtype, out.data(), count, &made);
  return made;
}

NonFinite ConvertStored(DType dtype, std::span<const std::byte> stored, DType out_dtype,
                        std::span<std::byte> out) {
  const size_t count = stored.size() / DTypeSize(dtype);
  RequireElements(dtype, stored, count);
  RequireElements(out_dtype, out, count);
  NonFinite made;
  HWY_DYNAMIC_DISPATCH(ConvertAny)
  (dtype, stored.data(), out_dtype, out.data(), count, &made);
  return made;
}

}  // namespace mergepipe
#endif
