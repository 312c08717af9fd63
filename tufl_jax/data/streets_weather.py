"""Light and sky of the two domains of rendered streets, drawn once per picture."""

import dataclasses

Range = tuple[float, float]
Colours = tuple[tuple[int, int, int], ...]


@dataclasses.dataclass(frozen=True)
class Weather:
    """Illumination and what the sensor makes of it."""

    weight: float
    ambient: Range
    diffuse: Range
    elevation: Range  # of the sun, degrees
    shadow: Range
    haze: Range  # per metre
    sky_top: Colours
    sky_low: Colours
    cloud: tuple[int, int, int]
    clouds: tuple[int, int]
    exposure: Range = (1.0, 1.0)
    contrast: Range = (1.0, 1.0)
    saturation: Range = (1.0, 1.0)
    cast: tuple[float, float, float] = (1.0, 1.0, 1.0)
    noise: Range = (0.0, 0.0)  # deviation in 8-bit steps, pictures 512 wide


GAME_WEATHER = {
    "clear": Weather(
        weight=3.0,
        ambient=(0.82, 0.92),
        diffuse=(0.2, 0.3),
        elevation=(40.0, 65.0),
        shadow=(0.25, 0.35),
        haze=(0.0, 0.0),
        sky_top=((70, 140, 226), (86, 156, 232), (110, 170, 236)),
        sky_low=((178, 212, 244), (198, 224, 246), (160, 204, 246)),
        cloud=(248, 250, 252),
        clouds=(0, 5),
    ),
    "pale": Weather(
        weight=2.0,
        ambient=(0.84, 0.96),
        diffuse=(0.08, 0.18),
        elevation=(50.0, 75.0),
        shadow=(0.12, 0.22),
        haze=(0.0, 0.0),
        sky_top=((176, 200, 228), (198, 210, 222), (190, 196, 204)),
        sky_low=((226, 234, 240), (236, 238, 240), (216, 220, 226)),
        cloud=(250, 250, 250),
        clouds=(2, 8),
    ),
    "evening": Weather(
        weight=0.8,
        ambient=(0.66, 0.78),
        diffuse=(0.2, 0.35),
        elevation=(18.0, 30.0),
        shadow=(0.2, 0.3),
        haze=(0.0, 0.0),
        sky_top=((108, 136, 204), (146, 160, 206)),
        sky_low=((252, 216, 172), (248, 204, 176)),
        cloud=(252, 228, 204),
        clouds=(1, 6),
    ),
}

# A car's camera exposes for the sky: the mean brightness is 0.28 beside the 0.47 of the
# rendered domain (0.33 to 0.37 in Cityscapes).
ROAD_WEATHER = {
    "overcast": Weather(
        weight=3.0,
        ambient=(0.86, 0.96),
        diffuse=(0.08, 0.18),
        elevation=(50.0, 80.0),
        shadow=(0.0, 0.1),
        haze=(0.002, 0.009),
        sky_top=((196, 200, 204), (176, 182, 188), (212, 214, 216)),
        sky_low=((220, 222, 222), (206, 208, 208), (232, 232, 230)),
        cloud=(182, 186, 192),
        clouds=(3, 9),
        exposure=(0.45, 0.84),
        contrast=(0.8, 1.0),
        saturation=(0.6, 0.85),
        cast=(0.98, 1.0, 1.02),
        noise=(3.0, 7.0),
    ),
    "sun": Weather(
        weight=2.5,
        ambient=(0.6, 0.72),
        diffuse=(0.4, 0.6),
        elevation=(30.0, 60.0),
        shadow=(0.4, 0.55),
        haze=(0.001, 0.004),
        sky_top=((104, 148, 202), (128, 168, 212), (152, 184, 216)),
        sky_low=((206, 216, 224), (214, 222, 226)),
        cloud=(236, 236, 234),
        clouds=(0, 7),
        exposure=(0.52, 0.94),
        contrast=(1.0, 1.25),
        saturation=(0.65, 0.95),
        cast=(1.03, 1.0, 0.95),
        noise=(2.0, 5.0),
    ),
    "low sun": Weather(
        weight=1.5,
        ambient=(0.5, 0.64),
        diffuse=(0.45, 0.7),
        elevation=(12.0, 24.0),
        shadow=(0.35, 0.52),
        haze=(0.004, 0.012),
        sky_top=((150, 160, 182), (176, 168, 170), (190, 176, 160)),
        sky_low=((240, 212, 168), (244, 224, 186), (230, 196, 160)),
        cloud=(232, 196, 164),
        clouds=(1, 7),
        exposure=(0.52, 0.94),
        contrast=(0.95, 1.2),
        saturation=(0.6, 0.9),
        cast=(1.12, 1.0, 0.84),
        noise=(3.0, 7.0),
    ),
    "mist": Weather(
        weight=0.8,
        ambient=(0.88, 0.98),
        diffuse=(0.02, 0.08),
        elevation=(50.0, 80.0),
        shadow=(0.0, 0.0),
        haze=(0.008, 0.018),
        sky_top=((196, 198, 200), (208, 208, 206)),
        sky_low=((206, 208, 208), (200, 202, 204)),
        cloud=(204, 206, 208),
        clouds=(0, 3),
        exposure=(0.44, 0.79),
        contrast=(0.75, 0.95),
        saturation=(0.5, 0.75),
        cast=(0.99, 1.0, 1.01),
        noise=(3.0, 8.0),
    ),
    "dusk": Weather(
        weight=0.6,
        ambient=(0.6, 0.75),
        diffuse=(0.05, 0.15),
        elevation=(10.0, 20.0),
        shadow=(0.0, 0.1),
        haze=(0.004, 0.012),
        sky_top=((92, 104, 138), (104, 112, 140)),
        sky_low=((170, 158, 160), (150, 150, 168)),
        cloud=(116, 116, 138),
        clouds=(2, 7),
        exposure=(0.37, 0.71),
        contrast=(0.85, 1.1),
        saturation=(0.6, 0.85),
        cast=(0.92, 0.97, 1.12),
        noise=(5.0, 10.0),
    ),
}
