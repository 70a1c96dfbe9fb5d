"use strict"
const at = (id) => document.getElementById(id)
const dark = matchMedia("(prefers-color-scheme: dark)").matches
const COLOURS = dark
  ? { sea: "#141c21", land: "#24313a", border: "#4a5d69", mark: "#5ec9b8", estimate: "#ffffff", dot: "#f0c75e", text: "#141c21" }
  : { sea: "#eaf0f4", land: "#fbfbf8", border: "#9fb0ba", mark: "#21918c", estimate: "#d1105a", dot: "#440154", text: "#ffffff" }
const TRIES = 4
const KM_A_DEGREE = 111.2
const asked = []
let shown = null
let unasked = []

function key() {
  const given = at("key").value.trim()
  return given ? { Authorization: `Bearer ${given}` } : {}
}

function say(text, bad = false) {
  at("state").textContent = text
  at("state").className = bad ? "bad" : ""
}

// by suffix too: some systems know no type for HEIC, and some no image type
const SUFFIXES = /\.(jpe?g|jpe|jfif|png|webp|tiff?|bmp|gif|hei[cf]s?|hif|avifs?|jp2|j2k|jpf|jpx|ppm|pgm|tga|pcx|psd|qoi)$/i
const isPhoto = (file) => !file.type || file.type.startsWith("image/") || SUFFIXES.test(file.name)
const sameFile = (a, b) => a.name === b.name && a.size === b.size && a.lastModified === b.lastModified

async function ask(files) {
  const photos = []
  for (const file of files) {
    if (!isPhoto(file)) { say(`${file.name} is no photo.`, true); continue }
    const before = asked.find((photo) => sameFile(photo.file, file))
    if (before?.answer) { if (files.length === 1) show(before); continue }  // it has its answer
    const photo = before || { file, url: URL.createObjectURL(file) }
    if (!before) asked.push(photo)
    photo.problem = null
    photos.push(photo)
  }
  waiting.push(...photos)
  list()
  if (!asking && waiting.length) await askAll()
}

const waiting = []
let asking = null
async function askAll() {
  asking = new AbortController()
  let done = 0
  for (; waiting.length; done++) {
    const photo = waiting.shift()
    say(`Looking at ${photo.file.name} (${waiting.length ? `${waiting.length} more to come` : "the last"}) …`)
    list()
    try {
      photo.answer = await one(photo.file)
      if (!shown || done === 0) show(photo)
    } catch (error) {
      if (error.name === "AbortError") { waiting.unshift(photo); break }
      if (error.needsKey) { asking = null; return askForKey([photo, ...waiting.splice(0)]) }
      photo.problem = error.message
    }
  }
  const left = waiting.splice(0)
  for (const photo of left) photo.problem = "not asked"
  const stopped = asking.signal.aborted
  asking = null
  list()
  const failed = asked.filter((photo) => photo.problem)
  if (stopped) say(`Stopped; ${left.length} not asked.`)
  else if (failed.length) say(asked.length === 1 ? `${failed[0].file.name}: ${failed[0].problem}` : `${asked.length} photos, ${failed.length} without an answer.`, true)
  else say(asked.length > 1 ? `${asked.length} photos.` : "")
}

function askForKey(photos) {
  unasked = photos.map((photo) => photo.file)
  for (const photo of photos) photo.problem = "not asked yet: the service wants a key"
  list()
  at("key-row").hidden = false
  at("key").focus()
  say(at("key").value ? "The service does not know this key." : "The service asks for a key.", true)
}

async function one(file, tries = TRIES) {
  const response = await fetch("/v1/geolocate?candidates=20&map=true", {
    method: "POST", body: file, signal: asking.signal,
    headers: { "Content-Type": file.type.startsWith("image/") ? file.type : "application/octet-stream", ...key() },
  }).catch((error) => { throw error.name === "AbortError" ? error : new Error("the service does not answer") })
  const answer = await response.json().catch((error) => { if (error.name === "AbortError") throw error; return {} })
  if (response.status === 429 && tries > 1) {
    const wait = +response.headers.get("Retry-After") || 1
    say(`${file.name}: the service is busy; again in ${wait} s …`)
    await new Promise((resolve) => setTimeout(resolve, 1000 * wait))
    return one(file, tries - 1)
  }
  if (!response.ok) {
    const error = new Error(answer.detail || `the service answers ${response.status}`)
    throw Object.assign(error, { needsKey: response.status === 401 })
  }
  if (!answer.estimate) throw new Error("the answer broke off")
  return answer
}

function distance(km) {
  if (km < 1) return "under 1 km"
  return `${km < 10 ? km.toFixed(1) : Math.round(km).toLocaleString("en")} km`
}

function certainty({ radius_km, confidence, calibrated }) {
  const percent = `${Math.round(100 * confidence)} %`
  return calibrated
    ? `within ${distance(radius_km)} with probability 90 %, within 25 km with ${percent}`
    : `radius ${distance(radius_km)}, confidence ${confidence.toFixed(2)}; neither is calibrated: they compare photos, and no more`
}

function list() {
  const many = asked.length > 1
  at("photos").replaceChildren(...(many ? asked.map(tile) : []))
  at("all").hidden = !many
  at("cancel").hidden = !asking || !waiting.length
  const answered = asked.filter((photo) => photo.answer)
  link("all-csv", csv(asked), "text/csv")
  link("all-geojson", JSON.stringify({ type: "FeatureCollection", features: answered.map(feature) }), "application/geo+json")
}

function tile(photo) {
  const button = document.createElement("button")
  button.type = "button"
  button.setAttribute("aria-current", photo === shown)
  button.append(picture(photo))
  const words = document.createElement("small")
  words.textContent = photo.problem || (photo.answer ? photo.answer.estimate.headline : "waiting …")
  words.className = photo.problem ? "bad" : "soft"
  button.append(words)
  button.title = photo.file.name
  button.addEventListener("click", () => (photo.answer ? show(photo) : say(`${photo.file.name}: ${photo.problem || "still waiting"}`, !!photo.problem)))
  return button
}

function picture(photo) {
  const image = Object.assign(document.createElement("img"), { src: photo.url, alt: photo.file.name })
  image.addEventListener("error", () => { image.classList.add("unseen") })  // a HEIC that the browser cannot show
  return image
}

function link(id, text, type) {
  URL.revokeObjectURL(at(id).href)
  at(id).href = URL.createObjectURL(new Blob([text], { type }))
}

// as spreadsheets read it; what begins like a formula is kept from being one
const quoted = (value) => `"${String(value ?? "").replace(/^[=+@-]/, (sign) => (typeof value === "number" ? sign : `'${sign}`)).replaceAll('"', '""')}"`
const FIELDS = ["lat", "lon", "radius_km", "confidence", "calibrated", "headline", "method"]
function csv(photos) {
  const rows = photos.map(({ file, answer, problem }) => [file.name, ...FIELDS.map((field) => answer?.estimate[field]), problem])
  return [["file", ...FIELDS, "problem"], ...rows].map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n"
}

function feature({ file, answer }) {
  const { lat, lon, ...properties } = answer.estimate
  return { type: "Feature", geometry: { type: "Point", coordinates: [lon, lat] }, properties: { file: file.name, ...properties } }
}

function show(photo) {
  shown = photo
  list()
  const { estimate, candidates, map } = photo.answer
  at("result").hidden = false
  at("photo").replaceChildren(picture(photo))
  at("place").textContent = estimate.headline
  at("sure").textContent = `${estimate.coordinates}\n${certainty(estimate)}\n` +
    `by ${estimate.method}, ${Math.round(photo.answer.timings_ms.total)} ms`
  link("geojson", JSON.stringify(map), "application/geo+json")
  at("geojson").download = `${photo.file.name}.geojson`
  const zoom = Math.max(2, Math.min(16, Math.floor(Math.log2(20000 / Math.max(estimate.radius_km, 0.1)))))
  const [lat, lon] = estimate.coordinates.split(", ")  // no more precise than the radius
  at("elsewhere").href = `https://www.openstreetmap.org/?mlat=${lat}&mlon=${lon}#map=${zoom}/${lat}/${lon}`
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
    fetch(candidate.thumbnail, { headers: key() })
      .then((response) => response.blob())
      .then((blob) => { picture.src = URL.createObjectURL(blob) })
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
  const area = map.features.find((one) => one.properties.role === "radius").geometry.coordinates
  const near = (lon) => lon + 360 * Math.round((estimate.lon - lon) / 360)
  const reach = candidates.slice(0, 5).map((c) => Math.max(Math.abs(c.lat - estimate.lat), Math.abs(near(c.lon) - estimate.lon) / 2))
  const side = Math.min(90, 1.3 * Math.max(1, estimate.radius_km / KM_A_DEGREE, ...reach))
  const [x, y] = [estimate.lon, Math.max(side - 90, Math.min(90 - side, estimate.lat))]
  const plot = Bokeh.Plotting.figure({
    x_range: [x - 2 * side, x + 2 * side], y_range: [y - side, y + side], height: 420, sizing_mode: "stretch_width",
    tools: "pan,wheel_zoom,reset", active_scroll: "wheel_zoom", background_fill_color: COLOURS.sea,
    border_fill_color: COLOURS.sea, outline_line_color: null, toolbar_location: "above",
  })
  plot.toolbar.logo = null
  for (const one of [plot.xaxis, plot.yaxis, plot.xgrid, plot.ygrid]) one.visible = false
  const cut = area.flat(2).some(([lon]) => Math.abs(lon) === 180)  // where it goes on on the map's other side
  const circle = { fill_color: COLOURS.mark, fill_alpha: 0.18, line_color: cut ? null : COLOURS.mark, line_width: 2 }
  for (const turn of [-360, 0, 360].filter((turn) => Math.abs(x - turn) < 180 + 2 * side)) {
    const turned = (lons) => lons.map((lon) => lon + turn)
    plot.patches(outlines.xs.map(turned), outlines.ys, { fill_color: COLOURS.land, line_color: COLOURS.border, line_width: 0.6 })
    const [xs, ys] = [0, 1].map((index) => area.map((part) => part.map((ring) => ring.map((point) => point[index] + (index ? 0 : turn)))))
    plot.multi_polygons([xs], [ys], circle)
  }
  const back = [...candidates].reverse()
  dots = new Bokeh.ColumnDataSource({ data: {
    x: back.map((c) => near(c.lon)), y: back.map((c) => c.lat), rank: back.map((c) => c.rank),
    label: back.map((c) => `${c.rank}`), place: back.map((c) => c.place || "no name"), size: back.map(() => 20),
  } })
  const field = (name) => ({ field: name })
  const points = plot.scatter(field("x"), field("y"), { source: dots, size: field("size"), fill_color: COLOURS.dot, line_color: "white" })
  plot.text(field("x"), field("y"), field("label"), { source: dots, text_align: "center", text_baseline: "middle", text_font_size: "11px", text_color: COLOURS.text })
  plot.scatter([estimate.lon], [estimate.lat], { marker: "x", size: 22, line_width: 4, line_color: COLOURS.estimate })
  plot.add_tools(new Bokeh.HoverTool({ renderers: [points], tooltips: [["", "@label: @place"]] }))
  dots.inspect.connect(() => {
    const rank = dots.inspected.indices.length ? dots.data.rank[dots.inspected.indices[0]] : null
    for (const item of at("candidates").children) item.classList.toggle("marked", +item.dataset.rank === rank)
  })
  at("map").replaceChildren()
  const view = await Bokeh.Plotting.show(plot, at("map"))
  const rule = () => scale(plot, view)
  for (const range of [plot.x_range, plot.y_range]) range.change.connect(rule)
  rule()
}

// the longest round distance that is no longer than a fifth of the map, at its middle
function scale({ x_range, y_range }, view) {
  const middle = ((y_range.start + y_range.end) / 2) * (Math.PI / 180)
  const across = (x_range.end - x_range.start) * KM_A_DEGREE * Math.max(0.01, Math.cos(middle))
  const wanted = across / 5, ten = 10 ** Math.floor(Math.log10(wanted))
  const km = ten * [5, 2, 1].find((step) => step * ten <= wanted)
  at("scale").style.width = `${(km / across) * at("map").clientWidth}px`
  at("scale").textContent = km >= 1 ? `${km.toLocaleString("en")} km` : `${Math.round(1000 * km)} m`
}

at("files").addEventListener("change", (event) => { ask(event.target.files); event.target.value = "" })
at("drop").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); at("files").click() }
})
addEventListener("paste", (event) => { if (event.clipboardData.files.length) ask(event.clipboardData.files) })
addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over") })
addEventListener("dragleave", () => at("drop").classList.remove("over"))
addEventListener("drop", (event) => { event.preventDefault(); at("drop").classList.remove("over"); ask(event.dataTransfer.files) })
at("ask").addEventListener("submit", (event) => { event.preventDefault(); ask(unasked) })
at("cancel").addEventListener("click", () => asking?.abort())
at("copy").addEventListener("click", async () => {
  const { coordinates } = shown.answer.estimate
  await navigator.clipboard.writeText(coordinates).then(() => say("Copied."), () => say(coordinates))
})
