// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "support/report.hpp"

namespace support {

/// A curve of a chart.
struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;
  bool dashed = false;  ///< for reference lines, such as chance
};

/// What a chart shows. Points that are not finite are left out, and points outside of a given y range are drawn at its edge.
struct Chart {
  std::string title, x_label, y_label;
  std::vector<Series> series;
  bool log_x = false;           ///< x on a logarithmic axis; points with x <= 0 are left out
  bool percent = false;         ///< y in 0 .. 1 shown in percent
  double y_from = 0, y_to = 0;  ///< equal: as the points need it
};

namespace detail {

inline std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == '&') {
      result += "&amp;";
    } else if (c == '<') {
      result += "&lt;";
    } else if (c == '>') {
      result += "&gt;";
    } else if (c == '"') {
      result += "&quot;";
    } else if (static_cast<unsigned char>(c) >= 0x20) {
      result += c;
    }
  }
  return result;
}

/// Round numbers that divide from .. to into about `wanted` parts.
inline std::vector<double> linear_ticks(double from, double to, int wanted) {
  const double raw = (to - from) / wanted, power = std::pow(10, std::floor(std::log10(raw)));
  const double unit = power * (raw / power <= 1.001 ? 1 : raw / power <= 2.001 ? 2 : raw / power <= 5.001 ? 5 : 10);
  std::vector<double> ticks;
  for (double i = std::ceil(from / unit - 1e-9); i * unit <= to + 1e-9 * unit; ++i)
    ticks.push_back(i * unit + 0.0);  // + 0 turns -0 into 0
  return ticks;
}

/// Powers of ten; with 2 and 5 times them where the axis spans less than two of them.
inline std::vector<double> log_ticks(double from, double to) {
  std::vector<double> ticks;
  const bool fine = to / from < 100;
  for (double power = std::pow(10, std::floor(std::log10(from))); power <= to * 1.0001; power *= 10) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      if ((fine || factor == 1) && power * factor >= from * 0.9999 && power * factor <= to * 1.0001)
        ticks.push_back(power * factor);
    }
  }
  return ticks;
}

inline std::string tick_text(double value, bool percent) {
  if (percent) return format("%g %%", std::round(1e6 * value) / 1e4);
  const double size = std::abs(value);
  if (size >= 1e6) return format("%g M", value / 1e6);
  if (size >= 1e4) return format("%g k", value / 1e3);
  return format("%g", std::abs(value) < 1e-12 ? 0.0 : value);
}

}  // namespace detail

/// A line chart as an SVG document: light background, axes with ticks, a legend to the right, one colour per series (a
/// palette that people with colour blindness can tell apart).
inline std::string svg_chart(const Chart& chart) {
  using detail::escaped;
  constexpr double width = 860, height = 460, left = 76, right = 230, top = 52, bottom = 60;
  constexpr const char* colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555"};
  const auto shown = [&](const std::pair<double, double>& p) {
    return std::isfinite(p.first) && std::isfinite(p.second) && (!chart.log_x || p.first > 0);
  };
  const auto place = [&](double x) { return chart.log_x ? std::log10(x) : x; };

  bool any = false;
  double x_from = 0, x_to = 1, y_from = 0, y_to = 1;
  for (const Series& series : chart.series) {
    for (const auto& point : series.points) {
      if (!shown(point)) continue;
      x_from = any ? std::min(x_from, point.first) : point.first;
      x_to = any ? std::max(x_to, point.first) : point.first;
      y_from = any ? std::min(y_from, point.second) : point.second;
      y_to = any ? std::max(y_to, point.second) : point.second;
      any = true;
    }
  }
  if (!any && chart.log_x) x_from = 1, x_to = 10;
  if (chart.y_from < chart.y_to) y_from = chart.y_from, y_to = chart.y_to;
  if (!(x_to > x_from)) x_to = chart.log_x ? 10 * x_from : x_from + 1;
  if (!(y_to > y_from)) y_to = y_from + (y_from == 0 ? 1 : std::abs(y_from));

  const auto px = [&](double x) {
    return left + (width - left - right) * (place(x) - place(x_from)) / (place(x_to) - place(x_from));
  };
  const auto py = [&](double y) {
    return height - bottom - (height - top - bottom) * (std::clamp(y, y_from, y_to) - y_from) / (y_to - y_from);
  };

  std::string svg = format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" width=\"%g\" height=\"%g\" ", width,
                           height, width, height);
  svg += "font-family=\"system-ui, 'DejaVu Sans', Helvetica, Arial, sans-serif\" font-size=\"14\" fill=\"#222\" role=\"img\">\n";
  svg += "<title>" + escaped(chart.title) + "</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n";
  svg += format("<text x=\"%g\" y=\"28\" font-size=\"18\" font-weight=\"600\">", left) + escaped(chart.title) + "</text>\n";

  for (const double tick : detail::linear_ticks(y_from, y_to, 5)) {
    svg += format("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#e3e3e3\"/>", left, py(tick), width - right,
                  py(tick));
    svg += format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", left - 10, py(tick) + 5) +
           detail::tick_text(tick, chart.percent) + "</text>\n";
  }
  for (const double tick : chart.log_x ? detail::log_ticks(x_from, x_to) : detail::linear_ticks(x_from, x_to, 6)) {
    svg += format("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#222\"/>", px(tick), height - bottom, px(tick),
                  height - bottom + 5);
    svg += format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", px(tick), height - bottom + 22) +
           detail::tick_text(tick, false) + "</text>\n";
  }
  svg += format("<path d=\"M%.1f %.1fV%.1fH%.1f\" fill=\"none\" stroke=\"#222\"/>\n", left, top, height - bottom, width - right);
  svg += format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", (left + width - right) / 2, height - 14) +
         escaped(chart.x_label) + "</text>\n";
  svg += format("<text transform=\"translate(20 %.1f) rotate(-90)\" text-anchor=\"middle\">", (top + height - bottom) / 2) +
         escaped(chart.y_label) + "</text>\n";

  double legend = top + 6;
  std::size_t number = 0;
  for (const Series& series : chart.series) {
    const char* colour = colours[number++ % std::size(colours)];
    const char* dash = series.dashed ? " stroke-dasharray=\"6 5\"" : "";
    std::string points;
    std::size_t count = 0;
    for (const auto& point : series.points) {
      if (!shown(point)) continue;
      points += format("%.1f,%.1f ", px(point.first), py(point.second));
      ++count;
    }
    if (count == 1) {
      svg += "<circle r=\"3.5\" fill=\"" + std::string(colour) + "\" cx=\"" + points.substr(0, points.find(',')) + "\" cy=\"" +
             points.substr(points.find(',') + 1, points.find(' ') - points.find(',') - 1) + "\"/>\n";
    } else if (count > 1) {
      points.pop_back();
      svg += "<polyline fill=\"none\" stroke-width=\"2.2\" stroke-linejoin=\"round\" stroke=\"" + std::string(colour) + "\"" +
             dash + " points=\"" + points + "\"/>\n";
    }
    svg += format("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke-width=\"2.6\" stroke=\"%s\"%s/>",
                  width - right + 16, legend, width - right + 42, legend, colour, dash);
    svg += format("<text x=\"%.1f\" y=\"%.1f\">", width - right + 50, legend + 5) + escaped(series.name) + "</text>\n";
    legend += 24;
  }
  return svg + "</svg>\n";
}

}  // namespace support
