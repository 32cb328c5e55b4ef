/* Shows /openapi.json with Swagger UI.
   validatorUrl: nothing is sent to a validation service.
   responseBody: the player of an answer gets the sound that was received; by itself it would fetch the
   address again, by GET.
   deepLinking is off: it puts a link into each button. */
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

const urls = new WeakMap(); // of sounds that were received

/** The address of a sound that was received; of anything else, its own. */
function urlOf({ content, contentType = "", url }) {
  if (!(content instanceof Blob) || !contentType.startsWith("audio/")) return url;
  if (!urls.has(content)) urls.set(content, URL.createObjectURL(content));
  return urls.get(content);
}

const playable = (Body, { React }) => (props) =>
  React.createElement(Body, { ...props, url: urlOf(props) });

/** All content belongs to a landmark, and the headings of the tags come after the title. */
function describe() {
  for (const [heading, level] of [[".opblock-tag", "2"], ["h4", "3"]]) {
    for (const one of document.querySelectorAll(heading)) one.setAttribute("aria-level", level);
  }
  for (const about of document.querySelectorAll(".information-container")) {
    about.setAttribute("role", "region");
    about.setAttribute("aria-label", "About");
  }
}

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#reference",
  validatorUrl: null,
  defaultModelsExpandDepth: 0,
  plugins: [() => ({ wrapComponents: { responseBody: playable } })],
  onComplete: describe,
});
