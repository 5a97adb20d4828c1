package api

import (
	"strings"

	"drover"
	"drover/apiv1"
)

// city is what is known of a region whose code is that of an airport.
type city struct {
	name      string
	latitude  float64
	longitude float64
	area      string
}

// Areas of the world, in the words that clients know.
const (
	africa       = "africa"
	asiaPacific  = "asia_pacific"
	europe       = "europe"
	northAmerica = "north_america"
	southAmerica = "south_america"
)

// cities returns the airports that regions are commonly named after. A region of another name is shown by its code.
func cities() map[drover.Region]city {
	return map[drover.Region]city{
		"ams": {"Amsterdam, Netherlands", 52.37, 4.90, europe},
		"arn": {"Stockholm, Sweden", 59.33, 18.07, europe},
		"atl": {"Atlanta, Georgia (US)", 33.75, -84.39, northAmerica},
		"bog": {"Bogota, Colombia", 4.71, -74.07, southAmerica},
		"bom": {"Mumbai, India", 19.08, 72.88, asiaPacific},
		"bos": {"Boston, Massachusetts (US)", 42.36, -71.06, northAmerica},
		"cdg": {"Paris, France", 48.86, 2.35, europe},
		"den": {"Denver, Colorado (US)", 39.74, -104.99, northAmerica},
		"dfw": {"Dallas, Texas (US)", 32.78, -96.80, northAmerica},
		"dub": {"Dublin, Ireland", 53.35, -6.26, europe},
		"ewr": {"Secaucus, NJ (US)", 40.79, -74.06, northAmerica},
		"eze": {"Buenos Aires, Argentina", -34.60, -58.38, southAmerica},
		"fra": {"Frankfurt, Germany", 50.11, 8.68, europe},
		"gru": {"Sao Paulo, Brazil", -23.55, -46.63, southAmerica},
		"hel": {"Helsinki, Finland", 60.17, 24.94, europe},
		"hkg": {"Hong Kong", 22.32, 114.17, asiaPacific},
		"iad": {"Ashburn, Virginia (US)", 39.04, -77.49, northAmerica},
		"jnb": {"Johannesburg, South Africa", -26.20, 28.05, africa},
		"lax": {"Los Angeles, California (US)", 34.05, -118.24, northAmerica},
		"lhr": {"London, United Kingdom", 51.51, -0.13, europe},
		"mad": {"Madrid, Spain", 40.42, -3.70, europe},
		"mia": {"Miami, Florida (US)", 25.76, -80.19, northAmerica},
		"muc": {"Munich, Germany", 48.14, 11.58, europe},
		"nrt": {"Tokyo, Japan", 35.68, 139.69, asiaPacific},
		"ord": {"Chicago, Illinois (US)", 41.88, -87.63, northAmerica},
		"otp": {"Bucharest, Romania", 44.43, 26.10, europe},
		"phx": {"Phoenix, Arizona (US)", 33.45, -112.07, northAmerica},
		"qro": {"Queretaro, Mexico", 20.59, -100.39, northAmerica},
		"scl": {"Santiago, Chile", -33.45, -70.67, southAmerica},
		"sea": {"Seattle, Washington (US)", 47.61, -122.33, northAmerica},
		"sin": {"Singapore", 1.35, 103.82, asiaPacific},
		"sjc": {"San Jose, California (US)", 37.34, -121.89, northAmerica},
		"syd": {"Sydney, Australia", -33.87, 151.21, asiaPacific},
		"waw": {"Warsaw, Poland", 52.23, 21.01, europe},
		"yul": {"Montreal, Canada", 45.50, -73.57, northAmerica},
		"yyz": {"Toronto, Canada", 43.65, -79.38, northAmerica},
		"zrh": {"Zurich, Switzerland", 47.38, 8.54, europe},
	}
}

func regionForm(code drover.Region, room int) apiv1.Region {
	form := apiv1.Region{Code: string(code), Name: string(code), Capacity: room}
	if c, ok := cities()[code]; ok {
		form.Name, form.Latitude, form.Longitude, form.GeoRegion = c.name, c.latitude, c.longitude, c.area
	}
	return form
}

// regionList reads a region, or several with commas between them: the first choice, and those that come next.
func regionList(field, text string) (drover.Region, []drover.Region, error) {
	if text == "" {
		return "", nil, nil
	}
	var all []drover.Region
	for name := range strings.SplitSeq(text, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			return "", nil, badField(field, "is %q; expected a region such as ams, or several with one comma between them", text)
		}
		if err := needName(field, name, false); err != nil {
			return "", nil, err
		}
		all = append(all, drover.Region(name))
	}
	return all[0], all[1:], nil
}
