#include "csrc/cpu/triplet.h"

#include <algorithm>

namespace pyreid::cpu {

template <class T>
Anchors<T> find_anchors(const int64_t* labels, int64_t b) {
  std::vector<int64_t> sorted(labels, labels + b);
  std::sort(sorted.begin(), sorted.end());
  Anchors<T> anchors{std::vector<Identity<T>>(b), std::vector<char>(b), 0};
  for (int64_t i = 0; i < b; ++i) {
    // The first place of a label in sorted order is a number of its own, and narrow enough.
    const auto [first, last] = std::equal_range(sorted.begin(), sorted.end(), labels[i]);
    anchors.identities[i] = static_cast<Identity<T>>(first - sorted.begin());
    anchors.valid[i] = last - first >= 2 && last - first < b;
    anchors.count += anchors.valid[i];
  }
  return anchors;
}

template <class T>
void reduce_losses(const T* losses, const Anchors<T>& anchors, Reduction reduction, T* loss) {
  if (reduction == Reduction::kNone) return;
  double sum = 0;
  for (size_t i = 0; i < anchors.valid.size(); ++i) sum += losses[i];
  if (reduction == Reduction::kMean && anchors.count > 0) sum /= static_cast<double>(anchors.count);
  *loss = static_cast<T>(sum);
}

template Anchors<float> find_anchors(const int64_t*, int64_t);
template Anchors<double> find_anchors(const int64_t*, int64_t);
template void reduce_losses(const float*, const Anchors<float>&, Reduction, float*);
template void reduce_losses(const double*, const Anchors<double>&, Reduction, double*);

}  // namespace pyreid::cpu
