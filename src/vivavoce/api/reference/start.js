/* Shows /openapi.json with Swagger UI.
   validatorUrl: nothing is sent to a validation service.
   defaultModelsExpandDepth: 0,
  supportedSubmitMethods: "Try it out" for GET only; its player fetches the audio of a POST by GET. */
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  validatorUrl: null,
  defaultModelsExpandDepth: 0,
  supportedSubmitMethods: ["get"],
});
