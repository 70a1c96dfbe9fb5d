"use strict"
const at = (id) => document.getElementById(id)
const dark = matchMedia("(prefers-color-scheme: dark)").matches
const COLOURS = dark
  ? { sea: "#141c21", land: "#24313a", border: "#4a5d69", mark: "#5ec9b8", dot: "#f0c75e", text: "#141c21" }
  : { sea: "#eaf0f4", land: "#fbfbf8", border: "#9fb0ba", mark: "#21918c", dot: "#440154", text: "#ffffff" }
const asked = []
let shown = null

function key() {
  const given = at("key").value.trim()
  return given ? { Authorization: `Bearer ${given}` } : {}
}

function say(text, bad = false) {
  at("state").textContent = text
  at("state").className = bad ? "bad" : ""
}

async function ask(files) {
  const photos = [...files].filter((file) => !file.type || file.type.startsWith("image/"))
  if (!photos.length) return say("That is no photo.", true)
  const problems = []
  for (const [number, file] of photos.entries()) {
    say(`Looking at ${file.name} (${number + 1} of ${photos.length}) …`)
    try {
      show(await one(file))
    } catch (error) {
      problems.push(`${file.name}: ${error.message}`)
    }
  }
  say(problems.join("\n") || (photos.length > 1 ? `${photos.length} photos.` : ""), problems.length > 0)
}

async function one(file) {
  const response = await fetch("/v1/geolocate?candidates=20&map=true", {
    method: "POST", body: file, headers: { "Content-Type": file.type || "application/octet-stream", ...key() },
  })
  const answer = await response.json().catch(() => ({}))
  if (response.status === 401) at("key-row").hidden = false
  if (!response.ok) throw new Error(answer.detail || `the service answers ${response.status}`)
  const photo = { answer, name: file.name, url: URL.createObjectURL(file) }
  asked.push(photo)
  return photo
}

function list() {
  at("photos").replaceChildren(...(asked.length < 2 ? [] : asked.map((photo) => {
    const button = document.createElement("button")
    const image = Object.assign(document.createElement("img"), { src: photo.url, alt: photo.name })
    button.type = "button"
    button.setAttribute("aria-current", photo === shown)
    button.append(image)
    button.addEventListener("click", () => show(photo))
    return button
  })))
}

function show(photo) {
  shown = photo
  list()
  const { estimate, candidates, map } = photo.answer
  at("result").hidden = false
  at("photo").src = photo.url
  at("place").textContent = estimate.place || "Open sea"
  const what = estimate.calibrated ? "error below 25 km with probability" : "confidence (not calibrated)"
  at("sure").textContent = `${estimate.lat.toFixed(5)}, ${estimate.lon.toFixed(5)} ± ${Math.round(estimate.radius_km)} km\n` +
    `${what} ${estimate.confidence.toFixed(2)}\nby ${estimate.method}, ${Math.round(photo.answer.timings_ms.total)} ms`
  at("geojson").href = URL.createObjectURL(new Blob([JSON.stringify(map)], { type: "application/geo+json" }))
  at("candidates").replaceChildren(...candidates.map(entry))
  draw(estimate, candidates, map)
}

function entry(candidate) {
  const item = document.createElement("li")
  item.tabIndex = 0
  item.dataset.rank = candidate.rank
  const number = document.createElement("b")
  number.textContent = candidate.rank
  const picture = document.createElement(candidate.thumbnail ? "img" : "span")
  if (candidate.thumbnail) {
    picture.alt = ""
    fetch(candidate.thumbnail, { headers: key() }).then((r) => r.blob()).then((b) => { picture.src = URL.createObjectURL(b) })
  }
  const words = document.createElement("div")
  words.textContent = candidate.place || "no name"
  const small = document.createElement("small")
  small.textContent = `${candidate.lat.toFixed(4)}, ${candidate.lon.toFixed(4)} · score ${candidate.score.toFixed(3)}`
  words.append(small)
  item.append(number, picture, words)
  for (const event of ["mouseenter", "focus"]) item.addEventListener(event, () => mark(candidate.rank))
  for (const event of ["mouseleave", "blur"]) item.addEventListener(event, () => mark(null))
  return item
}

let dots = null
function mark(rank) {
  for (const item of at("candidates").children) item.classList.toggle("marked", +item.dataset.rank === rank)
  if (!dots) return
  dots.data = { ...dots.data, size: dots.data.rank.map((one) => (one === rank ? 30 : 20)) }
}

let land = null
async function draw(estimate, candidates, map) {
  land ??= fetch("/static/outlines.json").then((response) => response.json())
  const outlines = await land
  if (!shown || shown.answer.estimate !== estimate) return
  const ring = map.features.find((one) => one.properties.role === "radius").geometry.coordinates[0]
  const reach = (index) => [...ring.map((p) => p[index]), ...candidates.slice(0, 5).map((c) => (index ? c.lat : c.lon))]
  const [west, east, south, north] = [Math.min(...reach(0)), Math.max(...reach(0)), Math.min(...reach(1)), Math.max(...reach(1))]
  const side = Math.max((east - west) / 2, north - south, 2) * 0.7
  const [x, y] = [(east + west) / 2, (south + north) / 2]
  const plot = Bokeh.Plotting.figure({
    x_range: [x - 2 * side, x + 2 * side], y_range: [y - side, y + side], height: 420, sizing_mode: "stretch_width",
    tools: "pan,wheel_zoom,reset", active_scroll: "wheel_zoom", background_fill_color: COLOURS.sea,
    border_fill_color: COLOURS.sea, outline_line_color: null, toolbar_location: "above",
  })
  plot.toolbar.logo = null
  for (const one of [plot.xaxis, plot.yaxis, plot.xgrid, plot.ygrid]) one.visible = false
  plot.patches(outlines.xs, outlines.ys, { fill_color: COLOURS.land, line_color: COLOURS.border, line_width: 0.6 })
  plot.patch(ring.map((p) => p[0]), ring.map((p) => p[1]), { fill_color: COLOURS.mark, fill_alpha: 0.18, line_color: COLOURS.mark, line_width: 2 })
  const back = [...candidates].reverse()
  dots = new Bokeh.ColumnDataSource({ data: {
    x: back.map((c) => c.lon), y: back.map((c) => c.lat), rank: back.map((c) => c.rank),
    label: back.map((c) => `${c.rank}`), place: back.map((c) => c.place || "no name"), size: back.map(() => 20),
  } })
  const field = (name) => ({ field: name })
  const points = plot.scatter(field("x"), field("y"), { source: dots, size: field("size"), fill_color: COLOURS.dot, line_color: "white" })
  plot.text(field("x"), field("y"), field("label"), { source: dots, text_align: "center", text_baseline: "middle", text_font_size: "11px", text_color: COLOURS.text })
  plot.add_tools(new Bokeh.HoverTool({ renderers: [points], tooltips: [["", "@label: @place"]] }))
  dots.inspect.connect(() => {
    const rank = dots.inspected.indices.length ? dots.data.rank[dots.inspected.indices[0]] : null
    for (const item of at("candidates").children) item.classList.toggle("marked", +item.dataset.rank === rank)
  })
  at("map").replaceChildren()
  await Bokeh.Plotting.show(plot, at("map"))
}

at("files").addEventListener("change", (event) => { ask(event.target.files); event.target.value = "" })
at("drop").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); at("files").click() }
})
addEventListener("paste", (event) => { if (event.clipboardData.files.length) ask(event.clipboardData.files) })
addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over") })
addEventListener("dragleave", () => at("drop").classList.remove("over"))
addEventListener("drop", (event) => { event.preventDefault(); at("drop").classList.remove("over"); ask(event.dataTransfer.files) })
at("ask").addEventListener("submit", (event) => event.preventDefault())
at("copy").addEventListener("click", async () => {
  const { lat, lon } = shown.answer.estimate
  await navigator.clipboard.writeText(`${lat}, ${lon}`).then(() => say("Copied."), () => say(`${lat}, ${lon}`))
})
