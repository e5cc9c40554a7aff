// Charts, the live counts of a running run, sorted tables, and copy buttons.
(function () {
  "use strict";

  const POLL_MILLISECONDS = 2000;

  function charts() {
    const holder = document.getElementById("chart-data");
    if (!holder || !window.Chart) return;
    const runs = JSON.parse(holder.textContent);
    const labels = runs.map((run) => run.label);
    let drawn = [];

    function colour(name) {
      return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    }

    function bars(id, series, stacked) {
      const datasets = series.map(([label, field, name]) => ({
        label,
        data: runs.map((run) => run[field]),
        backgroundColor: colour(name),
        maxBarThickness: 40,
      }));
      const axis = { stacked, ticks: { color: colour("--text") }, grid: { color: colour("--line") } };
      drawn.push(
        new window.Chart(document.getElementById(id), {
          type: "bar",
          data: { labels, datasets },
          options: {
            animation: false,
            maintainAspectRatio: false,
            plugins: { legend: { display: series.length > 1, labels: { color: colour("--text") } } },
            scales: { x: axis, y: { ...axis, beginAtZero: true, grace: "5%" } },
          },
        }),
      );
    }

    function draw() {
      drawn.forEach((chart) => chart.destroy());
      drawn = [];
      bars(
        "chart-objects",
        [
          ["De-identified", "deidentified", "--good"],
          ["Quarantined", "quarantined", "--warning"],
          ["Failed", "failed", "--bad"],
        ],
        true,
      );
      bars("chart-megabytes", [["Megabytes", "megabytes", "--accent"]], false);
      bars("chart-rate", [["Objects/s", "rate", "--accent"]], false);
    }

    draw();
    document.addEventListener("theme", draw);
  }

  function live() {
    const section = document.getElementById("progress");
    if (!section || !section.dataset.live) return;
    const bar = section.querySelector("progress");

    // A failed request is repeated.
    async function fetched() {
      try {
        const answer = await fetch(section.dataset.live, { headers: { Accept: "application/json" } });
        return answer.ok ? await answer.json() : null;
      } catch {
        return null;
      }
    }

    async function ask() {
      const counts = await fetched();
      if (counts) show(counts);
      if (counts && counts.state !== "running") window.location.reload();
      else window.setTimeout(ask, POLL_MILLISECONDS);
    }

    function show(counts) {
      bar.max = Math.max(counts.planned, 1);
      bar.value = counts.done;
      section.querySelectorAll("[data-count]").forEach((cell) => {
        const value = counts[cell.dataset.count];
        cell.textContent = typeof value === "number" ? value.toLocaleString("en") : value;
      });
    }

    window.setTimeout(ask, POLL_MILLISECONDS);
  }

  function copy() {
    document.addEventListener("click", async (event) => {
      const button = event.target.closest(".copy");
      if (!button) return;
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
      window.setTimeout(() => (button.textContent = "Copy"), 1500);
    });
  }

  // A heading sorts the rows of its table; sizes have their bytes in data-value.
  function sorting() {
    const compare = new Intl.Collator("en", { numeric: true }).compare;

    function values(row, index, isNumber) {
      const cell = row.cells[index];
      const text = cell.dataset.value ?? cell.textContent.trim();
      return isNumber ? parseFloat(text.replaceAll(",", "")) || 0 : text;
    }

    function sort(heading) {
      const isNumber = heading.classList.contains("n");
      const falls = heading.getAttribute("aria-sort") === (isNumber ? "descending" : "ascending") ? !isNumber : isNumber;
      heading.parentElement.querySelectorAll("[aria-sort]").forEach((each) => each.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const body = heading.closest("table").tBodies[0];
      const rows = [...body.rows].map((row) => [values(row, heading.cellIndex, isNumber), row]);
      rows.sort(([one], [other]) => (isNumber ? one - other : compare(one, other)) * (falls ? -1 : 1));
      body.append(...rows.map(([, row]) => row));
    }

    document.querySelectorAll("thead th").forEach((heading) => {
      if (heading.childElementCount) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.textContent = heading.textContent;
      button.addEventListener("click", () => sort(heading));
      heading.replaceChildren(button);
    });
  }

  window.addEventListener("load", charts);
  sorting();
  copy();
  live();
})();
