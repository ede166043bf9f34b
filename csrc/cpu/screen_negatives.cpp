#include "csrc/cpu/screen_negatives.h"

namespace pyreid::cpu {

void screen_negatives(const ScreenTask& task, int64_t* entered, int32_t* items, int64_t* undecided,
                      const ParallelFor& parallel_for) {
  parallel_for(0, task.rows, grain_for(task.columns), [&](int64_t begin, int64_t end) {
    for (int64_t q = begin; q < end; ++q) {
      const int64_t start = task.starts[q], n = task.starts[q + 1] - start;
      int64_t listed = 0;
      for (int64_t g = 0; n > 0 && g < task.columns; ++g) {
        const Screened at = screen(task, q, g, task.below + start, task.above + start, n);
        if (!at.decided) {
          if (listed < task.capacity) items[q * task.capacity + listed] = static_cast<int32_t>(g);
          ++listed;
        } else if (at.first < n) {
          ++entered[start + at.first];
        }
      }
      undecided[q] = listed;
    }
  });
}

}  // namespace pyreid::cpu
