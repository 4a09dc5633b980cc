"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const [gridHeight, gridWidth] = data.grid;
  const byId = (id) => document.getElementById(id);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const percent = (share) => {
    const value = 100 * share;
    if (value > 0 && value < 1) return `${value.toPrecision(2)}%`;
    return `${value.toFixed(value < 9.95 ? 1 : 0)}%`;
  };
  const MEAN = -1;

  const hash = () => new URLSearchParams(location.hash.slice(1));
  const queries = data.queries;
  // The order in which the lists show them.
  const order = all(".queries button[data-query]").map((button) => Number(button.dataset.query));
  const state = {
    query: data.first,
    point: [Math.floor(gridHeight / 2), Math.floor(gridWidth / 2)],
  };

  // Pictures are decoded when they are first wanted.
  const pictures = new Map();
  function decoded(uri) {
    if (!pictures.has(uri)) {
      const picture = new Image();
      picture.src = uri;
      pictures.set(uri, picture.decode().then(() => picture));
    }
    return pictures.get(uri);
  }

  // Draws one tile of a picture that holds many; the latest call wins.
  async function drawTile(canvas, view, index) {
    const ticket = (canvas.ticket = (canvas.ticket || 0) + 1);
    const picture = await decoded(view.uri);
    if (canvas.ticket !== ticket) return;
    canvas.width = gridWidth;
    canvas.height = gridHeight;
    const x = (index % view.columns) * gridWidth;
    const y = Math.floor(index / view.columns) * gridHeight;
    canvas
      .getContext("2d")
      .drawImage(picture, x, y, gridWidth, gridHeight, 0, 0, gridWidth, gridHeight);
    canvas.dataset.tile = index;
  }

  // Says what is not in the page, because it is too large.
  function limited(id, text) {
    const note = byId(`${id}-limits`);
    note.textContent = `${note.textContent} ${text}`.trim();
    note.hidden = false;
  }

  // Layer and head: only those that the page has can be chosen.
  function attentionChooser(id, { views, possible }, onChange) {
    const layer = byId(`${id}-layer`);
    const head = byId(`${id}-head`);
    const view = () =>
      views.find((v) => v.layer === Number(layer.value) && v.head === Number(head.value));
    function offerHeads() {
      for (const option of head.options)
        option.disabled = !views.some(
          (v) => v.layer === Number(layer.value) && v.head === Number(option.value)
        );
      if (head.selectedOptions[0].disabled) head.value = MEAN;
    }
    for (const option of layer.options)
      option.disabled = !views.some((v) => v.layer === Number(option.value));
    layer.addEventListener("change", () => {
      offerHeads();
      onChange();
    });
    head.addEventListener("change", onChange);
    offerHeads();
    if (views.length < possible)
      limited(id, "To keep the file small, not all heads of all layers are in it.");
    return view;
  }

  // Move 2.
  const encoder = byId("encoder");
  if (encoder) {
    const { step } = data.encoder;
    const view = attentionChooser("encoder", data.encoder, show);
    const columns = Math.ceil(gridWidth / step);
    const rows = Math.ceil(gridHeight / step);
    const marker = encoder.querySelector(".point");
    encoder.tabIndex = 0;
    encoder.setAttribute("role", "application");
    encoder.setAttribute(
      "aria-label",
      "Encoder self-attention. The arrow keys choose the point whose attention is shown."
    );

    function show() {
      const [row, column] = state.point.map((i) => Math.floor(i / step));
      const index = row * columns + column;
      const shown = view();
      drawTile(encoder.querySelector("canvas"), shown, index);
      marker.style.left = `${(100 * column * step) / gridWidth}%`;
      marker.style.top = `${(100 * row * step) / gridHeight}%`;
      const even = 1 / (gridHeight * gridWidth);
      const peak = shown.peaks[index];
      const times = peak / even;
      byId("encoder-text").textContent =
        `The point in row ${row * step + 1}, column ${column * step + 1} gives its strongest ` +
        `weight, ${percent(peak)}, to the brightest cell: ${times.toFixed(times < 9.95 ? 1 : 0)} times an ` +
        `even share (${percent(even)}).`;
    }
    function choosePoint(row, column) {
      state.point = [
        Math.min(rows - 1, Math.max(0, row)) * step,
        Math.min(columns - 1, Math.max(0, column)) * step,
      ];
      show();
    }
    function pointAt(event) {
      const frame = encoder.getBoundingClientRect();
      choosePoint(
        Math.floor((((event.clientY - frame.top) / frame.height) * gridHeight) / step),
        Math.floor((((event.clientX - frame.left) / frame.width) * gridWidth) / step)
      );
    }
    encoder.addEventListener("click", pointAt);
    encoder.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse" && event.buttons === 1) pointAt(event);
    });
    const arrows = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    encoder.addEventListener("keydown", (event) => {
      if (!arrows[event.key]) return;
      event.preventDefault();
      const [row, column] = state.point.map((i) => Math.floor(i / step));
      choosePoint(row + arrows[event.key][0], column + arrows[event.key][1]);
    });
    if (step > 1) limited("encoder", `Of this large grid one of ${step} rows and columns can be chosen.`);
    show();
  }

  // Moves 3 to 5 of the chosen query.
  const decoder = byId("decoder");
  const decoderView = decoder && attentionChooser("decoder", data.decoder, showDecoder);

  function showDecoder() {
    const view = decoderView();
    drawTile(decoder.querySelector("canvas"), view, state.query);
    byId("decoder-text").textContent =
      `This is where query ${state.query} (${queries[state.query].name}) looks. Its strongest weight is ` +
      `${percent(view.peaks[state.query])}.`;
  }

  function showBox() {
    const query = queries[state.query];
    const [left, top, right, bottom] = query.box_xyxy;
    const tag = byId("box-tag");
    tag.textContent = `${query.index} ${query.name} ${percent(query.score)}`;
    tag.style.top = top > 0.08 ? "auto" : `${100 * Math.min(bottom, 0.92)}%`;
    tag.style.bottom = top > 0.08 ? `${100 * (1 - top)}%` : "auto";
    tag.style.left = left < 0.6 ? `${100 * left}%` : "auto";
    tag.style.right = left < 0.6 ? "auto" : `${100 * (1 - right)}%`;
  }

  function showMaps() {
    all("#maps figure").forEach((figure, head) => {
      const view = data.maps.views[head];
      drawTile(figure.querySelector("canvas"), view, state.query);
      figure.querySelector("figcaption span").textContent =
        (data.maps.shares ? `${percent(data.maps.shares[state.query][head])} of the weight, ` : "") +
        `peak ${percent(view.peaks[state.query])}`;
    });
  }

  function stageRow(stage) {
    const figure = document.createElement("figure");
    figure.className = "strip-figure";
    const caption = figure.appendChild(document.createElement("figcaption"));
    const name = caption.appendChild(document.createElement("strong"));
    name.textContent = stage.name.replace("mask_head.", "");
    caption.append(` ${stage.size.join("×")}`);
    const strip = figure.appendChild(document.createElement("div"));
    strip.className = "strip";
    strip.style.setProperty("--strip", `url(${stage.uri})`);
    strip.style.setProperty("--count", stage.channels.length + 1);
    strip.style.setProperty("--ratio", `${stage.size[2]} / ${stage.size[1]}`);
    ["mean", ...stage.channels.map((channel) => `channel ${channel}`)].forEach((text, i) => {
      const cell = strip.appendChild(document.createElement("div"));
      const map = cell.appendChild(document.createElement("span"));
      map.className = "map";
      map.style.setProperty("--i", i);
      cell.appendChild(document.createElement("small")).textContent = text;
    });
    return figure;
  }

  function showStages() {
    const query = queries[state.query];
    const shown = data.stages[state.query];
    byId("stages").replaceChildren(...(shown ? shown.stages.map(stageRow) : []));
    byId("mask").hidden = !shown;
    byId("no-stages").hidden = Boolean(shown);
    if (!shown) {
      byId("no-stages").textContent = query.kept
        ? "To keep the file small, only the surest of the kept queries have their masks in it."
        : `No mask was made of query ${state.query}: move 6 dropped it. Choose a kept one.`;
      return;
    }
    if (shown.similarity) byId("similarity").src = shown.similarity;
    byId("logits").src = shown.logits;
    byId("inside").src = shown.mask;
  }

  function choose(query) {
    if (!queries[query]) return;
    state.query = query;
    const chosen = queries[query];
    byId("query").value = query;
    byId("chosen-swatch").style.background = chosen.color;
    for (const button of all("button[data-query]"))
      button.setAttribute("aria-pressed", Number(button.dataset.query) === query);
    for (const row of all("tr[data-row]"))
      row.classList.toggle("chosen", Number(row.dataset.row) === query);
    for (const text of all(".chosen[aria-live]"))
      text.textContent = `Query ${query}: ${chosen.name}, ${percent(chosen.score)}. ${chosen.why}`;
    showBox();
    if (decoder) showDecoder();
    if (data.maps) showMaps();
    if (data.stages) showStages();
    const wanted = hash();
    wanted.set("query", query);
    history.replaceState(null, "", `#${wanted}`);
  }

  const neighbour = (by) =>
    order[(order.indexOf(state.query) + by + order.length) % order.length];
  byId("query").addEventListener("change", (event) => choose(Number(event.target.value)));
  byId("next").addEventListener("click", () => choose(neighbour(1)));
  byId("previous").addEventListener("click", () => choose(neighbour(-1)));
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-query]");
    if (button) choose(Number(button.dataset.query));
    // The address keeps the query, so it has no room for the places of the moves.
    const link = event.target.closest(".moves a");
    if (link) {
      event.preventDefault();
      const heading = byId(link.getAttribute("href").slice(1)) || byId("move4");
      heading.scrollIntoView();
      heading.focus({ preventScroll: true });
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
    if (event.key === "j") choose(neighbour(1));
    if (event.key === "k") choose(neighbour(-1));
  });
  addEventListener("hashchange", () => {
    if (hash().has("query")) choose(Number(hash().get("query")));
  });

  const links = all(".moves a");
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((e) => e.isIntersecting))
        for (const link of links)
          if (link.getAttribute("href") === `#${entry.target.getAttribute("aria-labelledby")}`)
            link.setAttribute("aria-current", "location");
          else link.removeAttribute("aria-current");
    },
    { rootMargin: "-30% 0px -60% 0px" }
  );
  all("section").forEach((section) => watcher.observe(section));

  const asked = Number(hash().get("query") ?? NaN);
  choose(queries[asked] ? asked : data.first);
})();
